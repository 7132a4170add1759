"""What the maps of a run are, in words, for their labels."""

from pathlib import Path

from cryogan.run.contents import read_run_contents


def in_words(folder: Path, what: str) -> str:
    """What a map of a run is and what the run was made from, for the map's label.

    Equal for the same run in any folder; `what` alone where there is no `config.json`.

    Args:
        folder: of the run.
        what: "half-map 1".
    """
    if not (folder / "config.json").is_file():
        return what
    run = read_run_contents(folder)
    star, seed = run.particles.get("star"), run.config.get("seed")
    words = [what, run.objective, "" if star is None else Path(str(star)).name]
    words += [] if seed is None else [f"seed {seed}"]
    return ", ".join(word for word in words if word)
