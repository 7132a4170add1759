"""The page of `cryogan watch` in a browser: it loads, follows a run, and a lasso saves rows."""

import json
import threading
import time
from importlib.resources import files

import pytest
import torch

from browser import CHROMIUM, browser
from cryogan.io.row_numbers import read_row_numbers
from cryogan.report.particle_columns import read_particle_columns
from cryogan.report.scatter import embedded_scatter
from cryogan.watch.particles import Scatter
from cryogan.watch.server import WatchServer
from cryogan.watch.site import Site
from watched_runs import (
    add_records,
    adversarial_in_progress,
    at_work,
    em_iteration,
    finish,
    likelihood_in_progress,
    write_poses,
)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed"),
]

COUNT = 400
_STAGE = "document.querySelector('.stage').textContent"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("watched")
    likelihood_in_progress(folder / "one")
    adversarial_in_progress(folder / "two")
    latents = torch.rand(COUNT, 2, generator=torch.Generator().manual_seed(0))
    write_poses(folder / "poses.star", latents)
    return folder


@pytest.fixture(scope="module")
def page(folder):
    """The page of both runs, loaded."""
    site = Site([folder / "one", folder / "two"], Scatter.read(folder / "poses.star"))
    with (
        WatchServer(site) as server,
        at_work(folder / "one"),
        at_work(folder / "two"),
        browser(folder / "profile") as page,
    ):
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            page.download_to(folder)
            page.open(server.url)
            page.wait("document.querySelectorAll('.strip.three img').length === 9")
            page.wait("document.querySelector('.scatter [role=status]') !== null")
            yield page
        finally:
            server.shutdown()
            thread.join()


def complaints(page):
    """Of the console, but for what the graphics driver says of its own speed."""
    return [each for each in page.messages if "GL Driver Message" not in each]


def lasso(page):
    """Drawn round the left half of the scatter plot."""
    box = page.value("""(() => {
        const canvas = document.querySelector('.scatter canvas');
        canvas.scrollIntoView({ block: 'center' });
        const box = canvas.getBoundingClientRect();
        return [box.left, box.top, box.width, box.height];
    })()""")
    left, top, width, height = box
    corners = [(0.02, 0.01), (0.5, 0.01), (0.5, 0.97), (0.02, 0.97), (0.02, 0.02)]
    page.drag([(left + width * x, top + height * y) for x, y in corners])


def test_it_shows_the_runs(page):
    assert page.value("document.title") == "one, two: cryogan watch"
    assert page.value(_STAGE).startswith("refinement, iteration 4, 7 rings")
    assert "50 %" in page.value("document.querySelectorAll('.stage')[1].textContent")
    titles = page.value(
        "Array.from(document.querySelectorAll('.chart figcaption'), e => e.textContent)"
    )
    assert "half-map FSC 0.143 (Å)" in titles
    assert "critic's distance of real and simulated images" in titles
    assert page.value("document.querySelectorAll('.strip.eight img').length") == 32
    assert page.value("Array.from(document.images).every(e => e.alt && e.naturalWidth > 0)")
    assert complaints(page) == []


def test_the_map_is_drawn_and_turns_with_the_keyboard(page):
    """The surface is blue on white; the arrow keys change the picture."""
    pixels = """(() => {
        const canvas = document.querySelector('.looks canvas');
        if (canvas.hidden) return null;
        const gl = canvas.getContext('webgl2'), found = new Uint8Array(4 * 720 * 720);
        gl.readPixels(0, 0, 720, 720, gl.RGBA, gl.UNSIGNED_BYTE, found);
        let blue = 0, sum = 0;
        for (let i = 0; i < found.length; i += 4) {
            if (found[i] < 200 && found[i + 2] > found[i]) { blue++; sum += i % 2880; }
        }
        return [blue, sum];
    })()"""
    before = page.value(pixels)
    if before is None:
        pytest.skip("this browser has no WebGL 2")
    assert before[0] > 5_000
    page.value("document.querySelector('.looks canvas').focus()")
    page.press("ArrowLeft")
    assert page.value(pixels) != before
    assert complaints(page) == []


def test_everything_can_be_reached_with_the_tab_key(page):
    unreachable = """Array.from(document.querySelectorAll('button, input, select, canvas, svg'))
        .filter(e => e.tabIndex < 0 && !e.hidden && !e.hasAttribute('aria-hidden')).length"""
    assert page.value(unreachable) == 0
    unnamed = """Array.from(document.querySelectorAll('input, select'))
        .filter(e => !e.labels.length).length"""
    assert page.value(unnamed) == 0
    page.value("document.querySelector('.chart svg').focus()")
    page.press("ArrowRight")
    assert "60" in page.value("document.querySelector('.readout').textContent")


def test_a_lasso_saves_rows(page, folder):
    """Round all with latent 0 below about a half; the file goes with --ind."""
    lasso(page)
    told = page.value("document.querySelector('.scatter [role=status]').textContent")
    chosen = int(told.split()[0])
    assert 0.3 * COUNT < chosen < 0.7 * COUNT
    page.value("document.getElementById('save-rows').click()")
    path, end = folder / "chosen.txt", time.monotonic() + 240
    while not path.is_file() and time.monotonic() < end:
        time.sleep(0.1)
    rows = read_row_numbers(path)
    assert len(rows) == chosen
    values = Scatter.read(folder / "poses.star").columns.values["cryoganLatent0"]
    inside, outside = values[rows], values[sorted(set(range(COUNT)) - set(rows.tolist()))]
    assert inside.max() < outside.min() + 1e-6


def test_a_report_has_the_same_lasso(page, folder, tmp_path):
    """From columns inside the page: a lasso round all chooses all."""
    columns = read_particle_columns(folder / "poses.star")
    style, *scripts = (
        (files("cryogan.report") / "templates" / name).read_text()
        for name in ("style.css", "scatter.js", "particles.js")
    )
    data = json.dumps(embedded_scatter(columns))
    path = tmp_path / "report.html"
    path.write_text(
        '<!DOCTYPE html><meta charset="utf-8"><link rel="icon" href="data:,">'
        f"<style>{style}</style>"
        '<div id="particles-scatter"></div>'
        f'<script type="application/json" id="scatter">{data}</script>'
        f"<script>{scripts[0]}</script><script>{scripts[1]}</script>"
    )
    url = page.value("location.href")
    page.open(path.as_uri())
    told = "document.querySelector('.scatter [role=status]').textContent"
    page.wait("document.querySelector('.scatter [role=status]')?.textContent.startsWith('0 of')")
    lasso(page)
    assert 0.3 * COUNT < int(page.value(told).split()[0]) < 0.7 * COUNT
    page.open(url)
    page.wait("document.querySelectorAll('.strip.three img').length === 9")
    page.wait("document.querySelector('.scatter [role=status]') !== null")


def test_ranges_choose_without_a_mouse(page):
    page.value("document.getElementById('scatter-bound0').value = '0.75'")
    page.value("document.querySelector('.scatter fieldset button').click()")
    told = page.value("document.querySelector('.scatter [role=status]').textContent")
    assert 0.15 * COUNT < int(told.split()[0]) < 0.35 * COUNT


def test_it_follows_the_run_to_its_end(page, folder):
    add_records(folder / "one", em_iteration(5))
    page.wait(f"{_STAGE}.startsWith('refinement, iteration 5')")
    finish(folder / "one")
    page.wait(f"{_STAGE}.startsWith('finished')")
    verdict = page.value("document.querySelector('.run .verdict').textContent")
    assert verdict == "Verdict: structure found (as it was made)."
    page.wait("document.querySelector('.strip.three .row').textContent === 'map'")
    captions = "Array.from(document.querySelectorAll('.chart figcaption'), e => e.textContent)"
    page.wait(f"{captions}.some(e => e.startsWith('Fourier shell correlation'))")
    assert complaints(page) == []
