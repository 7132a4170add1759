"""`cryogan watch`: what its server answers, to whom, and what it makes of run folders."""

import base64
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
import torch

from cryogan.cli import main
from cryogan.errors import InputError
from cryogan.io.row_numbers import read_row_numbers
from cryogan.objectives.assumptions import Assumptions
from cryogan.phantom import phantom_map
from cryogan.report.voxel_series import voxel_series
from cryogan.run.lock import RUN_LOCK
from cryogan.watch.curves import curves_of
from cryogan.watch.lines import follow, line_of
from cryogan.watch.particles import Scatter
from cryogan.watch.pictures import pictures_version, run_pictures, run_voxels
from cryogan.watch.server import WatchServer
from cryogan.watch.site import Site
from cryogan.watch.state import run_state
from finished_runs import finished as finished_conformations
from watched_runs import (
    BOX,
    PIXEL_SIZE_A,
    add_records,
    adversarial_in_progress,
    at_work,
    begun,
    em_iteration,
    finish,
    likelihood_in_progress,
    write_poses,
)

SECRET = "nobody may read this"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two runs, the first of which goes on, and files beside them that are nobody's business."""
    folder = tmp_path_factory.mktemp("watched")
    likelihood_in_progress(folder / "one")
    adversarial_in_progress(folder / "two")
    (folder / "secret.json").write_text(SECRET)
    (folder / "one" / "secret.json").write_text(SECRET)
    write_poses(folder / "poses.star", torch.rand(50, 2, generator=torch.Generator()))
    return folder


@pytest.fixture(scope="module")
def server(folder):
    site = Site([folder / "one", folder / "two"], Scatter.read(folder / "poses.star"))
    with WatchServer(site) as server, at_work(folder / "one"):
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def asked(server, target, method="GET", **headers):
    """Status, headers and content of a request whose target is sent as it is."""
    lines = [f"{method} {target} HTTP/1.0"]
    lines += [f"{n}: {v}" for n, v in ({"Host": "localhost"} | headers).items() if v is not None]
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as connection:
        connection.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
        answer = http.client.HTTPResponse(connection, method=method)
        answer.begin()
        return answer.status, answer.headers, answer.read()


def asked_json(server, path):
    with urllib.request.urlopen(server.url + path, timeout=60) as answer:
        assert answer.headers["Content-Type"] == "application/json"
        return json.loads(answer.read())


# Who gets an answer


def test_the_page_and_its_parts_come_from_this_server_only(server):
    with urllib.request.urlopen(server.url, timeout=60) as answer:
        page, headers = answer.read().decode(), answer.headers
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "http" not in policy
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert "http://" not in page
    assert "https://" not in page
    assert "<script>" not in page  # the policy forbids it
    assert "style=" not in page
    total = len(page)
    for part in ("style.css", "watch.css", "renderer.js", "chart.js", "scatter.js", "watch.js"):
        assert f'"{part}"' in page
        status, _, content = asked(server, f"/{server.token}/{part}")
        assert status == 200
        total += len(content)
    assert total < 1e6


@pytest.mark.parametrize(
    "target",
    [
        "/",
        "/state.json",
        "//state.json",
        "/wrong/state.json",
        "/wrong/",
        "/wrong",
        "/TOKENx/state.json",
        "/TOKE/state.json",
        "http://[/state.json",
        "/%FF/state.json",
        "/tokén/state.json",
    ],
)
def test_nothing_without_the_token(server, target):
    target = target.replace("TOKEN", server.token).replace("TOKE", server.token[:-1])
    status, headers, content = asked(server, target)
    assert status == 404
    assert server.token not in content.decode()
    assert "Content-Security-Policy" in headers


def test_tokens_differ_and_cannot_be_guessed(server):
    other = WatchServer(Site([]))
    other.server_close()
    assert other.token != server.token
    assert len(other.token) >= 22  # 128 bits in base64


@pytest.mark.parametrize(
    "path",
    [
        "../secret.json",
        "..%2fsecret.json",
        "%2e%2e/secret.json",
        "runs/0/../secret.json",
        "runs/0/secret.json",
        "runs/0/config.json",
        "runs/../map.json",
        "runs/2/map.json",
        "runs/999/map.json",
        "runs/-1/map.json",
        "runs/0/map.json/",
        "runs/٠/map.json",
        "particles/99",
        "particles/-1",
        "FOLDER/one/secret.json",
        "/etc/passwd",
        "//etc/passwd",
        "page.html/..",
        "watch.py",
        "__init__.py",
    ],
)
def test_no_path_leads_to_another_file(server, folder, path):
    target = f"/{server.token}/{path.replace('FOLDER', str(folder))}"
    status, _, content = asked(server, target)
    assert status in (400, 404)  # 400 where http.server finds no target in it
    assert SECRET.encode() not in content


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1", 200),
        ("127.0.0.1:8765", 200),
        ("localhost:1234", 200),  # a forwarded port
        ("[::1]:80", 200),
        ("LOCALHOST", 200),
        ("evil.example", 403),
        ("evil.example:8765", 403),
        ("127.0.0.1.evil.example", 403),
        ("localhost.evil.example", 403),
        ("evil.example@localhost.evil", 403),
        ("192.168.0.7", 403),  # not an address of a loopback
        ("[::1", 403),
        ("", 403),
        (None, 403),
    ],
)
def test_names_of_others_are_refused(server, host, status):
    """A page of another site may point a name of its own at this computer (DNS rebinding)."""
    assert asked(server, f"/{server.token}/state.json", Host=host)[0] == status


def test_a_server_for_the_network_knows_its_own_names():
    with WatchServer(Site([]), "0.0.0.0") as server:
        assert not server.is_local
        assert server.accepts("192.168.0.7:80")
        assert server.accepts("localhost")
        assert not server.accepts("evil.example")
        assert f":{server.port}/{server.token}/" in server.url


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "NONSENSE"])
def test_it_only_reads(server, method):
    status, _, _ = asked(server, f"/{server.token}/state.json", method)
    assert status == 501


def test_head_sends_no_content_and_a_bare_address_is_completed(server):
    status, headers, content = asked(server, f"/{server.token}/watch.js", "HEAD")
    assert (status, content) == (200, b"")
    assert int(headers["Content-Length"]) > 1000
    status, headers, _ = asked(server, f"/{server.token}")
    assert (status, headers["Location"]) == (301, f"/{server.token}/")


def test_a_taken_port_and_a_strange_host_are_refused(server):
    with pytest.raises(InputError, match="Cannot listen"):
        WatchServer(Site([]), port=server.port)
    with pytest.raises(InputError, match="Cannot listen"):
        WatchServer(Site([]), "no.such.host.invalid")


def test_nothing_is_written(server, folder):
    def contents():
        return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}

    before = contents()
    for path in ("state.json", "runs/0/map.json", "runs/1/pictures.json", "particles.json"):
        asked_json(server, path)
    assert contents() == before


# What it tells


def test_a_likelihood_run_in_progress(server, folder):
    runs = asked_json(server, "state.json")["runs"]
    run = runs[0]
    assert (run["name"], run["objective"], run["state"]) == ("one", "likelihood", "running")
    assert run["stage"] == "refinement, iteration 4, 7 rings"
    assert run["fraction"] is None
    assert run["left"].startswith("at most ")  # (20 - 4) iterations of 10 s
    assert run["verdict"] is None
    assert dict(run["facts"])["half-map FSC 0.143 so far"] == "15.00 Å"
    resolution = [curve for curve in run["curves"] if curve["key"] == "half_map_0.143_A"]
    assert [curve["phase"] for curve in resolution] == ["refinement"]
    assert resolution[0]["y"] == [60.0, 30.0, 20.0, 15.0]
    assert resolution[0]["wall_s"] == [30.0, 40.0, 50.0, 60.0]
    phases = [c["phase"] for c in run["curves"] if c["key"] == "log_likelihood"]
    assert phases == ["initial model", "refinement"]
    assert [c["y"][-1] for c in run["curves"] if c["key"] == "effective_poses"] == [18.75]
    assert run["left_out"] == []
    assert runs[1]["state"] == "stopped"  # no process has its lock


def test_an_adversarial_run_in_progress(folder):
    with at_work(folder / "two"):
        run = run_state(folder / "two")
    assert run["state"] == "running"
    assert run["fraction"] == pytest.approx(0.5)  # 60 % and 40 %
    assert run["left"] == "about 5 min 00 s"  # the slower half: 200 s for 40 %, 60 % are left
    assert {(c["key"], c["log"]) for c in run["curves"]} == {
        (key, half)
        for key in ("distance", "critic_loss", "volume_loss")
        for half in ("half1", "half2")
    }


def test_the_map_so_far_is_the_map(server):
    found = asked_json(server, "runs/0/map.json")
    expected = voxel_series(phantom_map(BOX, PIXEL_SIZE_A)[None], PIXEL_SIZE_A)
    assert found["labels"] == ["map so far"]
    assert found["voxels"] == expected.data
    assert found["side"] == expected.side
    halves = asked_json(server, "runs/1/map.json")
    assert halves["labels"] == ["half-map 1 so far", "half-map 2 so far"]
    assert len(base64.b64decode(halves["voxels"])) == 2 * halves["side"] ** 3


def test_pictures(server):
    found = asked_json(server, "runs/1/pictures.json")
    assert [row["label"] for row in found["sections"]] == ["half-map 1 so far", "half-map 2 so far"]
    assert [len(row["pictures"]) for row in found["sections"]] == [3, 3]
    assert [row["label"] for row in found["examples"]] == [
        *("simulated: projection", "after the CTF", "with noise", "real particles"),
    ]
    assert asked_json(server, "runs/0/pictures.json")["examples"] == []


def test_columns_of_particles(server, folder):
    about = asked_json(server, "particles.json")
    assert (about["file"], about["count"]) == ("poses.star", 50)
    assert [about["columns"][i] for i in (about["x"], about["y"])] == ["latent 0", "latent 1"]
    _, _, content = asked(server, f"/{server.token}/particles/{about['y']}")
    lines = (folder / "poses.star").read_text().splitlines()[-50:]
    known = np.array([float(line.split()[2]) for line in lines])
    np.testing.assert_allclose(np.frombuffer(content, "<f4"), known, atol=1e-6)


def test_a_run_goes_on_and_ends(tmp_path):
    run = tmp_path / "run"
    begun(run, "likelihood")
    with at_work(run):
        assert run_state(run)["stage"] == "reading and measuring images"
    likelihood_in_progress(tmp_path / "other", 2)
    run = tmp_path / "other"
    before, version = run_state(run), pictures_version(run)
    assert version == pictures_version(run)
    add_records(run, em_iteration(3))
    assert run_state(run)["curves"] != before["curves"]
    finish(run)
    assert pictures_version(run) != version
    found = run_state(run)
    assert (found["state"], found["stage"], found["fraction"]) == ("finished", "finished", 1.0)
    assert found["verdict"] == ["structure found", "as it was made"]
    assert dict(found["facts"])["resolution to quote"] == "16.25 Å"
    assert found["fsc"]["curves"]["half_map"][0] == pytest.approx(0.94)
    assert run_voxels(run)["labels"] == ["map"]
    assert len(run_pictures(run)["sections"][0]["pictures"]) == 3


def test_no_resolution_without_structure(tmp_path):
    likelihood_in_progress(tmp_path / "run")
    finish(tmp_path / "run", "no structure")
    found = run_state(tmp_path / "run")
    assert found["verdict"][0] == "no structure"
    assert "No resolution is quoted" in found["warning"]
    assert not any("FSC" in what for what, _ in found["facts"])


def test_conformations_are_shown_as_a_series(tmp_path):
    maps = torch.stack([phantom_map(BOX, PIXEL_SIZE_A) * (1 + 0.1 * n) for n in range(5)])
    assumptions = Assumptions(latent="uniform")
    finished_conformations(
        tmp_path / "run", assumptions, maps, torch.linspace(0, 1, 5)[:, None], "likelihood", 8.0
    )
    assert run_voxels(tmp_path / "run")["labels"] == [f"map {n} of 5" for n in range(1, 6)]
    assert [row["label"] for row in run_pictures(tmp_path / "run")["sections"]] == ["mean map"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("summary.json", b"{"),
        ("summary.json", b"[1]"),
        ("summary.json", b'{"verdict": {"word": 3}, "resolution_A": "x"}'),
        (
            "stats.jsonl",
            b'\xff\xfe\n{"images_seen": NaN, "wall_s": "x"}\n{"images_seen": Infinity}\n',
        ),
        ("stats.jsonl", b'{"phase": 3, "stage": "x", "fraction": NaN, "wall_s": NaN}\n'),
        ("fsc.csv", b"nonsense\n"),
        ("map.mrc", b"short"),
        ("map_so_far.mrc", b"short"),
        ("examples.npz", b"no archive"),
        ("config.json", b"{"),
        ("config.json", b'{"config": 3, "particles": [], "objective": null}'),
        ("conformations/latents.csv", b"nonsense\n"),
    ],
)
def test_what_is_damaged_is_left_out(tmp_path, name, content):
    run = tmp_path / "run"
    likelihood_in_progress(run)
    finish(run)
    (run / name).parent.mkdir(exist_ok=True)
    (run / name).write_bytes(content)
    site = Site([run])
    for path in ("state.json", "runs/0/map.json", "runs/0/pictures.json"):
        found = json.loads(site.answer(path).content)
    if name not in ("stats.jsonl", "conformations/latents.csv") and content[:1] != b'{"':
        told = run_state(run)["left_out"] + run_voxels(run)["left_out"]
        told += run_pictures(run)["left_out"]
        assert isinstance(found, dict)
        if not content.startswith(b'{"'):
            assert any(Path(name).name in sentence for sentence in told), told


def test_a_run_that_goes_away_does_not_take_the_others_with_it(tmp_path):
    for name in ("one", "two"):
        likelihood_in_progress(tmp_path / name)
    site = Site([tmp_path / "one", tmp_path / "two"])
    (tmp_path / "one" / "config.json").unlink()
    runs = json.loads(site.answer("state.json").content)["runs"]
    assert [run["state"] for run in runs] == ["unreadable", "stopped"]
    assert "config.json" in runs[0]["left_out"][0]
    assert json.loads(site.answer("runs/0/map.json").content)["voxels"] is None


def test_long_logs_are_averaged():
    records = [
        {"distance": float(n % 2), "wall_s": float(n), "images_seen": n} for n in range(10_000)
    ]
    (curve,) = curves_of({"half1": records})
    assert len(curve["y"]) == 400
    assert all(abs(y - 0.5) < 0.1 for y in curve["y"])
    assert curve["wall_s"][-1] > 9_950


def test_numbers_of_other_objectives_are_drawn():
    records = [{"tension": 2.0, "wall_s": 1.0, "images_seen": 5, "words": "x"}]
    assert [curve["key"] for curve in curves_of({"": records})] == ["tension"]


# Lines instead of a page


def test_lines_until_all_runs_are_finished(tmp_path):
    likelihood_in_progress(tmp_path / "one")
    likelihood_in_progress(tmp_path / "two")
    finish(tmp_path / "two")
    lines = []
    slept = []

    def sleep(seconds):
        slept.append(seconds)
        finish(tmp_path / "one", "doubtful")

    with at_work(tmp_path / "one"):
        both = [tmp_path / "one", tmp_path / "two"]
        assert follow(both, lines.append, every_s=7.0, sleep=sleep) == []
    assert slept == [7.0]
    assert len(lines) == 3
    assert "one: refinement, iteration 4, 7 rings" in lines[0]
    assert "no process works in its folder" not in lines[0]
    assert "two: finished, verdict: structure found" in lines[1]
    assert "one: finished, verdict: doubtful" in lines[2]


def test_a_killed_run_is_not_waited_for(tmp_path, capsys):
    """The lock file of a killed process stays, and nobody holds it."""
    likelihood_in_progress(tmp_path / "run")
    (tmp_path / "run" / RUN_LOCK).write_text("process 1 on here since then")
    likelihood_in_progress(tmp_path / "other")
    finish(tmp_path / "other")
    folders = [str(tmp_path / name) for name in ("run", "other")]
    assert main(["watch", *folders, "--no-browser"]) == 5
    said = capsys.readouterr()
    assert said.out.count("\n") == 2
    assert "no process works in its folder" in said.out
    assert "other: finished" in said.out
    assert said.err == (
        f"No process works in {folders[0]} and the results are not complete; the same command as "
        "before resumes the run.\n"
    )


def test_a_run_that_is_killed_is_noticed_while_others_go_on(tmp_path):
    likelihood_in_progress(tmp_path / "killed")
    likelihood_in_progress(tmp_path / "other")
    lines = []
    slept = []
    works = ExitStack()
    works.enter_context(at_work(tmp_path / "killed"))

    def sleep(seconds):
        slept.append(seconds)
        if len(slept) == 1:
            works.close()
        else:
            finish(tmp_path / "other")

    with at_work(tmp_path / "other"):
        folders = [tmp_path / "killed", tmp_path / "other"]
        assert follow(folders, lines.append, sleep=sleep) == [tmp_path / "killed"]
    assert len(lines) == 5
    assert len(slept) == 2


def test_a_run_that_ends_while_it_is_looked_at_has_not_stopped(tmp_path, monkeypatch):
    """Its lock is free a moment after its last file was written, or looked for."""
    likelihood_in_progress(tmp_path / "run")

    def holder_of(path):
        if not (tmp_path / "run" / "summary.json").exists():
            finish(tmp_path / "run")

    monkeypatch.setattr("cryogan.run.status.holder_of", holder_of)
    assert follow([tmp_path / "run"], lambda line: None) == []


def test_runs_that_are_called_alike_are_told_apart(tmp_path):
    for name in ("a", "b"):
        likelihood_in_progress(tmp_path / name / "run")
        finish(tmp_path / name / "run")
    lines = []
    follow([tmp_path / "a" / "run", tmp_path / "b" / "run"], lines.append)
    assert [
        f"{tmp_path}/{name}/run: finished" in line for name, line in zip("ab", lines, strict=True)
    ] == [
        True,
        True,
    ]


def test_time_left_is_told_in_a_line(tmp_path):
    adversarial_in_progress(tmp_path / "run")
    with at_work(tmp_path / "run"):
        line = line_of(run_state(tmp_path / "run"), "now")
    assert line.startswith("now run: stage 2, step 1200, 24 px, 50 %, 5 min 00 s elapsed")
    assert line.endswith("about 5 min 00 s left")


# The command


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere"], "no run folder"),
        (["run", "--port", "70000"], "from 0 to 65535"),
        (["run", "--poses", "nowhere.star"], "no file"),
        (["run", "--poses", "run/config.json"], "no star file"),
        (["run", "--no-browser", "--port", "0"], "leave out --port"),
        (["run", "--every", "5"], "goes with --no-browser"),
        (["run", "--no-browser", "--every", "0"], "from 0.1 on"),
        (["run"] * 13, "12 at most"),
        (["run", "--host", "no.such.host.invalid"], "Cannot listen"),
    ],
)
def test_refusals(tmp_path, monkeypatch, capsys, arguments, words):
    monkeypatch.chdir(tmp_path)
    begun(Path("run"), "likelihood")
    assert main(["watch", *arguments]) == 2
    said = capsys.readouterr()
    assert words in said.err
    assert said.err.count("\n") == 1


def test_the_command_prints_an_address_and_ends_with_ctrl_c(tmp_path):
    likelihood_in_progress(tmp_path / "run")
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    environment.pop("SSH_CONNECTION", None)
    command = [sys.executable, "-m", "cryogan", "watch", str(tmp_path / "run"), "--port", "0"]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # ignored in a background
    ) as process:
        line = process.stdout.readline()
        assert line.startswith("page: http://127.0.0.1:")
        with urllib.request.urlopen(line.split()[1] + "state.json", timeout=120) as answer:
            assert json.loads(answer.read())["runs"][0]["name"] == "run"
        with pytest.raises(urllib.error.HTTPError):
            urllib.request.urlopen(line.split()[1][:-3] + "/state.json", timeout=120)
        process.send_signal(signal.SIGINT)
        assert process.wait(120) == 0
        assert process.stderr.read() == ""


def test_rows_that_the_page_saves_are_those_of_ind(tmp_path):
    """As `scatter.js` writes them; rows 0 and 1 alone are no mask."""
    path = tmp_path / "chosen.txt"
    path.write_text("# rows, counted from 0, of poses.star\n0\n1\n")
    assert read_row_numbers(path).tolist() == [0, 1]


def test_states_are_kept_for_a_moment(tmp_path, monkeypatch):
    likelihood_in_progress(tmp_path / "run")
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    site = Site([tmp_path / "run"])
    first = site.answer("state.json")
    add_records(tmp_path / "run", em_iteration(5))
    assert site.answer("state.json") is first
    now[0] += 1.0
    assert b"iteration 5" in site.answer("state.json").content
