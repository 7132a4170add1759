"""What docs/results.md says of each table in benchmarks/results."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Section:
    """One heading of the page.

    Attributes:
        title: of the heading.
        tables: name of each CSV file, without suffix, and what tells it from the others.
        command: that made them.
        about: what was measured, in Markdown.
        columns: those shown; all if empty.
        by: columns that rows are grouped by; every row is shown if empty.
        last: show the last row of a group; medians and ranges otherwise.
    """

    title: str
    tables: Mapping[str, str]
    command: str
    about: str
    columns: tuple[str, ...] = ()
    by: tuple[str, ...] = ()
    last: bool = False


_TRUTH = ("truth_fsc_0.5_A", "truth_fsc_0.143_A", "correlation")
_BETAGAL = {"20dB": "−20 dB", "5.2dB": "−5.2 dB"}


def _betagal(name: str) -> dict[str, str]:
    return {f"{name}_betagal-{short}": label for short, label in _BETAGAL.items()}


SECTIONS = (
    Section(
        "Table I of CryoGAN",
        {"table1": ""},
        "cryogan benchmark table1 -o DIR",
        "β-galactosidase by the published recipe, the published numbers beside ours.",
    ),
    Section(
        "Table II of CryoGAN",
        {"table2": ""},
        "cryogan benchmark table2 -o DIR",
        "Assumed against true viewing directions; σ as defined in simulate.md.",
    ),
    Section(
        "β-galactosidase, adversarial, by seed",
        _betagal("seeds"),
        "python benchmarks/seeds.py DIR -o benchmarks/results --name betagal-20dB",
        "20,000 images of 64 px (`cryogan simulate betagal-64px`), C1, one volume from the whole "
        "set, default settings, one thread. The end of each run.",
        ("cpu_s", "images_seen", *_TRUTH),
        ("seed",),
        last=True,
    ),
    Section(
        "β-galactosidase, whole routes",
        _betagal("routes"),
        "python benchmarks/routes.py DIR -o benchmarks/results --name NAME --seeds 0 1 2 3 4",
        "The same sets from particles to refined maps: a short adversarial run and its refinement; "
        "likelihood from one random initialisation; RELION 3.1; and a reconstruction at the true "
        "poses (`oracle`), the bound. Seconds include the parts before.",
        ("cpu_s", "truth_fsc_0.5_A", "truth_fsc_0.143_A", "fsc_at_nyquist", "correlation"),
        ("route", "part"),
    ),
    Section(
        "Against RELION's initial model",
        _betagal("against_relion"),
        "python benchmarks/against_relion.py DIR -o OUT --minutes 9",
        "The same images, evaluation and CPU seconds, one thread each, side by side. The end of "
        "each run; RELION's is half-way by then.",
        ("cpu_s", "wall_s", *_TRUTH),
        ("program",),
        last=True,
    ),
    Section(
        "Against the published recipe",
        {"default_against_paper": "−5.2 dB"},
        "python benchmarks/default_against_paper.py DIR -o OUT --minutes 60",
        "The presets `default` and `paper` side by side, one thread each. The end of each run.",
        ("cpu_s", "images_seen", "box_size", *_TRUTH),
        ("preset",),
        last=True,
    ),
    Section(
        "Implicit against explicit",
        {"implicit_explicit": ""},
        "python benchmarks/implicit_explicit.py SETS -o OUT --datadir ../shared/data",
        "β-galactosidase, 32 px of 7.64 Å (Nyquist 15.3 Å), three seeds a cell. *found*: FSC 0.5 "
        "with the truth at 1.25 × Nyquist or better.",
        ("outcome", "truth_fsc_0.5_A", "cpu_s"),
        ("snr_dB", "images", "method"),
    ),
    Section(
        "Realistic sets",
        {"realistic": ""},
        "python benchmarks/realistic.py -o benchmarks/results --datadir DATA --conditions ideal "
        "shifts-only all",
        "No option but the file; `bound_0.5_A` is the map of the same images at their true poses.",
    ),
    Section(
        "Real particles",
        {"real_sets": ""},
        "python benchmarks/real_sets.py DATA/SET/particles.star -o benchmarks/results --reference "
        "MAP --symmetries D2",
        "Likelihood, against a reference map, which the reconstruction never reads.",
    ),
    Section(
        "Conformations of Hsp90",
        {"hsp90": ""},
        "python benchmarks/hsp90.py SETS -o benchmarks/results --work RUNS --sets motion1 --seeds "
        "0 1 2",
        "100,000 images of 32 px, −10 dB, poses and conformations unknown ([what the columns "
        "mean](heterogeneity.md)). Other sets by `--sets`. memory_GB is the most of all commands "
        "that one call of the benchmark had run until then, so that it may be too high.",
    ),
    Section(
        "CryoBench's scores, poses unknown",
        {"cryobench": ""},
        "cryogan simulate cryobench-igg-1d --condition centred --scale 0.25 --images 8000 -o "
        "SETS/igg-1d-32px; python benchmarks/cryobench.py SETS -o benchmarks/results --work RUNS "
        '--sets igg-1d-32px --seeds 0 1 2 --options "--latent circle --basis-volumes 8 '
        '--max-shift 0"',
        "From the star file to the report, then every image assigned. Areas depend on the box: the "
        "true mean map's are beside them; the largest possible one is 0.469 in 32 px and 0.484 in "
        "64 px. `coverage` counts the 20 maps of a run against 100 states, 0.20 at most. The set "
        "igg-1d-32px-b was simulated with `--seed 11`, and run with the seeds 3 and 4.",
        (
            "set",
            "seed",
            "cpu_s",
            "memory_GB",
            "motion_fsc_0.5_A",
            "coverage",
            "per_image_area",
            "per_conformation_area",
            "true_mean_map_area",
            "circular_correlation",
            "pose_error_deg",
        ),
    ),
    Section(
        "Symmetry given, found, or none",
        {"symmetry": ""},
        "OMP_NUM_THREADS=1 python benchmarks/symmetry.py -o benchmarks/results",
        "400 images of 24 px of C3 and D2 phantoms, likelihood, short settings.",
        ("ended_with", "truth_fsc_0.5_A", "mean_truth_fsc", "cpu_s"),
        ("phantom", "snr_dB", "symmetry"),
    ),
    Section(
        "Density of viewing directions",
        {"view_density": ""},
        "python benchmarks/view_density.py -o benchmarks/results",
        "Refined from the true map at low resolution, with the density estimated and flat; `kl` is "
        "the Kullback-Leibler divergence from the true density.",
        ("fsc_shell_4", "fsc_shell_6", "fsc_shell_8", "mean_fsc", "kl", "kl_of_uniform"),
        ("views", "snr_dB", "prior"),
    ),
    Section(
        "Shifts and size",
        {"shifts": ""},
        "python benchmarks/shifts.py -o benchmarks/results --datadir ../shared/data",
        "What is measured of shifts and diameters, and what searching the rest costs.",
    ),
    Section(
        "What extraction leaves in images",
        {"nuisances": ""},
        "python benchmarks/nuisances.py --objective likelihood",
        "One set given anew with offsets, ramps, hot pixels and others; "
        "`--objective adversarial` for the other rows.",
        (
            "correlation_with_truth",
            "fsc_with_plain_at_0.9_nyquist",
            "half_map_0.143_A",
            "truth_0.5_A",
            "cpu_s",
        ),
        ("objective", "variant"),
    ),
    Section(
        "Verdicts on noise and on a molecule",
        {
            "verdict_calibration_short": "likelihood",
            "verdict_calibration_short_32px": "likelihood, 32 px",
            "verdict_calibration_adversarial": "adversarial training",
        },
        "python benchmarks/verdict_calibration.py --short --noise-runs 201 --seeds 5 "
        "--first-seed 100 -o benchmarks/results",
        "Short runs of 300 images of 16 px: noise alone, and the phantom at ten SNRs "
        "([verdict.md](verdict.md)). Of 32 px: `--box-size 32 --noise-runs 15`, stopped in the "
        "first seed. That of adversarial training, by an earlier verdict, has `--adversarial "
        "--noise-runs 30 --seeds 0` instead.",
        ("verdict", "half_map_0.143_A", "truth_fsc_0.5_A", "cpu_s"),
        ("kind", "snr_dB"),
    ),
    Section(
        "Half-maps of four molecules",
        {"half_map_runs": ""},
        "python benchmarks/half_map_runs.py -o benchmarks/results --datadir ../shared/data",
        "1,000 images of 32 px; the adversarial runs are short ([validation.md](validation.md)).",
        ("verdict", "half_map_0.143_A", "held_out_A", "truth_fsc_0.5_A", "cpu_s"),
        ("molecule", "snr_dB", "objective"),
        last=True,
    ),
    Section(
        "Half-maps against the truth",
        {"half_map_against_truth": ""},
        "python benchmarks/half_map_against_truth.py -o benchmarks/results",
        "By how many Fourier shells the half-map resolution is finer than that with the truth: "
        "above 1 is too fine ([validation.md](validation.md)).",
        ("shells_finer", "leaves_room"),
        ("set", "kind"),
    ),
    Section(
        "Goodness of fit",
        {"goodness_of_fit": ""},
        "python benchmarks/goodness_of_fit.py -o benchmarks/results",
        "What is wrong with the model, and what the residuals of held-out images say.",
        ("ks_distance", "below_0.01", "contrast", "not_shown", "named"),
        ("wrong", "snr_dB"),
    ),
    Section(
        "Spreads of assigned poses",
        {"posterior_spreads": ""},
        "python benchmarks/posterior_spreads.py -o benchmarks/results",
        "Mean square of errors over that of spreads, 1 if spreads are right; shares of true poses "
        "within 1 and 2 spreads.",
        (
            "angle_error_median",
            "angle_mean_square_ratio",
            "angle_within_1",
            "angle_within_2",
            "shift_mean_square_ratio",
        ),
        ("snr_dB", "shift_percent"),
    ),
    Section(
        "Images of flat posteriors",
        {"flat_posteriors": ""},
        "python benchmarks/flat_posteriors.py -o benchmarks/results",
        "FSC with the truth in shells 8 and 10 by which poses count.",
        ("images", "fsc_shell_8", "fsc_shell_10"),
        ("snr_dB", "rule"),
    ),
    Section(
        "Real particles assigned to a map",
        {"assign_to_map": ""},
        "python benchmarks/assign_to_map.py -o benchmarks/results --datadir ../shared/data",
        "101 particles of EMPIAR-10061, a map of their molecule and of another; 10, 50 and 90 %.",
    ),
    Section(
        "Noise of background",
        {
            "noise_of_background_apoferritin": "apoferritin",
            "noise_of_background_empiar-10017": "EMPIAR-10017",
        },
        "python benchmarks/noise_of_background.py STAR PATCHES -o benchmarks/results",
        "Noise power by shell: measured on the particles (`line`), and that of the background.",
    ),
    Section(
        "Cost of a training step",
        {"cost_per_step": ""},
        "python benchmarks/cost_per_step.py -o DIR",
        "One thread.",
        (
            "critic",
            "box_size",
            "images",
            "batch_size",
            "cpu_s",
            "steps_per_s",
            "peak_memory_MB",
        ),
    ),
    Section(
        "Memory and streaming",
        {"streaming_memory": "streamed images", "memory_estimate": "estimates"},
        "python benchmarks/streaming_memory.py DIR -o benchmarks/results; OMP_NUM_THREADS=1 python "
        "benchmarks/memory_estimate.py -o benchmarks/results",
        "Peak memory of stages whose images are held or streamed; estimates beside what runs took.",
    ),
    Section(
        "Kill campaign",
        {"kill_campaign": ""},
        "python benchmarks/kill_campaign.py -o benchmarks/results --work SCRATCH --sequences 9",
        "Commands in forks, killed (SIGKILL) at random CPU times and inside writes, several times "
        "in a sequence, and then left to end: a row a kill, one at the end of a sequence. An entry "
        "in `problem` would be a result that differs in a bit, a left-over, an orphan, a folder "
        "that is blocked, or a traceback; `none`: had ended before.",
        ("target", "in_write", "ended_with", "seconds_to_end", "orphans", "problem"),
        ("case",),
    ),
    Section(
        "Signals",
        {"kill_campaign_signals": ""},
        "python benchmarks/kill_campaign.py -o benchmarks/results --work SCRATCH --signals",
        "The same with one signal a sequence, to the group of processes, the command or a worker "
        "(the command where it has none); it must end with the signal's exit code and resume.",
        ("case", "target", "ended_with", "seconds_to_end", "orphans", "problem"),
        ("signal",),
    ),
    Section(
        "Lost workers",
        {"kill_campaign_workers": ""},
        "python benchmarks/kill_campaign.py -o benchmarks/results --work SCRATCH --workers 20",
        "One of the workers killed (SIGKILL): `seconds_to_end` from the kill to the command's end, "
        "the sentence, whether the other half-set has saved its last record, and what the same "
        "command then leaves.",
        (
            "workers",
            "ended_with",
            "seconds_to_end",
            "sentence",
            "survivor_saved",
            "orphans",
            "problem",
        ),
        ("case",),
    ),
    Section(
        "Memory of long runs",
        {"memory_growth": ""},
        "python benchmarks/memory_growth.py -o benchmarks/results --work SCRATCH",
        "Resident memory (MB) of every process, and a line through its samples.",
    ),
    Section(
        "Answers of the command line",
        {"startup": ""},
        "python benchmarks/startup.py -o benchmarks/results",
        "Seconds, and in units of importing torch.",
    ),
    Section(
        "Cost of an EM iteration",
        {"likelihood_profile": ""},
        "python benchmarks/likelihood_profile.py -o benchmarks/results --boxes 64 128 --shares 1 "
        "--shifts 0",
        "300 images of the phantom, one thread; CPU seconds of each part (docs/likelihood.md).",
    ),
)
