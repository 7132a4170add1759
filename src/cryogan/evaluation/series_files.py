"""A comparison of conformations on disk: `evaluation.json`, `matrix.csv`, `evaluation.png`."""

import json
from pathlib import Path
from typing import Any

from cryogan.evaluation.series_comparison import SeriesComparison
from cryogan.evaluation.series_plots import plot_series
from cryogan.files import write_text

SERIES_FILES = ("evaluation.json", "matrix.csv", "evaluation.png")


def write_series_comparison(folder: Path, comparison: SeriesComparison) -> None:
    """Write all numbers, the matrix of maps and states, and a picture.

    Args:
        folder: must exist.
        comparison: from `compare_series`.

    Raises:
        InputError: the folder cannot be written.
    """
    write_text(folder / SERIES_FILES[0], json.dumps(series_record(comparison), indent=2))
    write_text(folder / SERIES_FILES[1], _matrix(comparison))
    plot_series(folder / SERIES_FILES[2], comparison)


def series_record(comparison: SeriesComparison) -> dict[str, Any]:
    """All numbers, as `evaluation.json` holds them."""
    generated, truth = comparison.generated, comparison.truth
    population_error = comparison.population_error.abs()
    states = [
        {
            "map": name,
            "coordinate": coordinate,
            "true_share": true,
            "recovered_share": recovered,
            "reached": reached,
            "best_map": generated.names[best],
            "resolution_A": resolution,
            "resolution_masked_A": masked,
        }
        for name, coordinate, true, recovered, reached, best, resolution, masked in zip(
            truth.names,
            truth.coordinate.tolist(),
            truth.weight.tolist(),
            comparison.recovered_share.tolist(),
            comparison.reached.tolist(),
            comparison.best_volume.tolist(),
            comparison.state_resolution_A().tolist(),
            comparison.state_resolution_A(masked=True).tolist(),
            strict=True,
        )
    ]
    maps = [
        {"map": name, "latent": latent, "weight": weight, "best_state": truth.names[best]}
        for name, latent, weight, best in zip(
            generated.names,
            generated.coordinate.tolist(),
            generated.weight.tolist(),
            comparison.best_state.tolist(),
            strict=True,
        )
    ]
    return {
        "box_size": truth.volumes.shape[-1],
        "pixel_size_A": truth.pixel_size_A,
        "mean_resolution_A": {
            "0.5": comparison.mean_resolution_A(),
            "0.5_masked": comparison.mean_resolution_A(masked=True),
            "0.143": comparison.mean_resolution_A(0.143),
            "0.143_masked": comparison.mean_resolution_A(0.143, masked=True),
            "0.5_of_the_true_mean_map": comparison.mean_map_resolution_A,
        },
        "mean_fsc_auc": comparison.mean_auc,
        "mean_fsc_auc_of_the_true_mean_map": comparison.mean_map_auc,
        "motion_resolution_A": comparison.motion_resolution_A,
        "motion_fsc": comparison.motion_fsc.tolist(),
        "coverage": comparison.coverage,
        "coverage_within_one_state": comparison.near_coverage,
        "span": comparison.span,
        "spearman_rho": comparison.monotonicity,
        "circular_correlation": comparison.circular_correlation,
        "wasserstein": comparison.wasserstein,
        "wasserstein_of_one_state": comparison.wasserstein_of_one_state,
        "population_error_points": {
            "mean": float(population_error.mean()),
            "largest": float(population_error.max()),
        },
        "amplitude_of_motion": {
            "recovered": comparison.diversity.amplitude,
            "true": comparison.true_diversity.amplitude,
        },
        "largest_difference": {
            "recovered": comparison.diversity.largest,
            "true": comparison.true_diversity.largest,
        },
        "alignment": {
            "mirrored": comparison.alignment.mirrored,
            "rotation": comparison.alignment.rotation.tolist(),
            "shift_A": comparison.alignment.shift_A.tolist(),
        },
        "states": states,
        "maps": maps,
    }


def _matrix(comparison: SeriesComparison) -> str:
    """One row a pair of map and true state."""
    plain, masked = (comparison.resolution_A(masked=m).tolist() for m in (False, True))
    auc, correlation = comparison.auc.tolist(), comparison.correlation.tolist()
    information = comparison.information.tolist()
    best_state, best_volume = comparison.best_state.tolist(), comparison.best_volume.tolist()
    lines = [
        "map,state,fsc_0.5_A,fsc_0.5_masked_A,fsc_auc,correlation,information_nats,"
        "best_state_of_map,best_map_of_state"
    ]
    for i, name in enumerate(comparison.generated.names):
        for k, state in enumerate(comparison.truth.names):
            lines.append(
                f"{name},{state},{plain[i][k]:.4f},{masked[i][k]:.4f},{auc[i][k]:.6f},"
                f"{correlation[i][k]:.6f},{information[i][k]:.2f},"
                f"{int(best_state[i] == k)},{int(best_volume[k] == i)}"
            )
    return "\n".join(lines) + "\n"
