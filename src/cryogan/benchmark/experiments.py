"""The tables that can be made anew: their sets, their cells, and what stands beside them.

A cell is one run on one set. Nothing here needs torch.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from cryogan.benchmark import published
from cryogan.benchmark.published import Resolutions
from cryogan.errors import InputError

TRUE_POSES, ADVERSARIAL, LIKELIHOOD, COMBINED = (
    "true poses",
    "adversarial",
    "likelihood",
    "combined",
)
OBJECTIVES: Mapping[str, tuple[str, ...]] = {
    "adversarial": (ADVERSARIAL,),
    "likelihood": (LIKELIHOOD,),
    "both": (ADVERSARIAL, LIKELIHOOD),
    "combined": (ADVERSARIAL, COMBINED),
}
"""What --objective says -> methods; the bound by true poses is in every table."""

ESTIMATED = "estimated"
VIEW_SIGMA = {"uniform": 1.0, "sigma2": 2.0, "sigma3": 3.0}
"""Name of an assumed distribution of viewing directions -> its σ."""


@dataclass(frozen=True)
class SetOfTable:
    """A simulated set of a table.

    Attributes:
        name: in tables and folders.
        label: what tells it from the others, in words.
        recipe, condition: of `cryogan simulate`.
        shift_percent: largest shift, which a reconstruction is told, in percent of the box.
        has_background: whether patches of background lie beside it.
        latent: of conformations: keyword arguments of `api.reconstruct`.
    """

    name: str
    label: str
    recipe: str
    condition: str
    shift_percent: float = 0.0
    has_background: bool = False
    latent: Mapping[str, Any] = field(default_factory=dict)

    @property
    def folder(self) -> str:
        """Its name as that of a folder, which must not look like an option."""
        return self.name.lstrip("-")


@dataclass(frozen=True)
class Cell:
    """One run of a table.

    Attributes:
        set_name: of the images.
        method: `TRUE_POSES`, `ADVERSARIAL`, `LIKELIHOOD` or `COMBINED`.
        symmetry: that is imposed.
        seed: of the run, not of the set.
        assumed: distribution of viewing directions: a key of `VIEW_SIGMA`, or `ESTIMATED`.
    """

    set_name: str
    method: str
    symmetry: str
    seed: int
    assumed: str = "uniform"

    @property
    def name(self) -> str:
        """Of its folder."""
        method = self.method.replace(" ", "-")
        views = "" if self.method == TRUE_POSES else f"_{self.assumed}"
        return f"{self.set_name.lstrip('-')}_{self.symmetry}_{method}{views}_seed{self.seed}"

    @property
    def needs(self) -> "Cell | None":
        """The cell whose run this one begins with."""
        if self.method == COMBINED:
            return replace(self, method=ADVERSARIAL)
        if self.method == ADVERSARIAL and self.assumed == ESTIMATED:
            return replace(self, method=LIKELIHOOD)
        return None


@dataclass(frozen=True)
class Experiment:
    """A table.

    Attributes:
        name: on the command line.
        title: of the page.
        citation: of the publication.
        sets: that it is about, by name.
        conditions: name on the command line -> name of the set, and assumed views.
        default: conditions that are run unless others are named.
        symmetries: imposed unless others are given.
        published: resolutions by name of the set and assumed views.
        notes: what a reader of the table has to know.
    """

    name: str
    title: str
    citation: str
    sets: Mapping[str, SetOfTable]
    conditions: Mapping[str, tuple[str, str]]
    default: Sequence[str]
    symmetries: Sequence[str]
    published: Mapping[tuple[str, str], Resolutions]
    notes: Sequence[str]

    @property
    def has_conformations(self) -> bool:
        """Whether runs look for conformations."""
        return any(each.latent for each in self.sets.values())

    @property
    def compares_views(self) -> bool:
        """Whether the table is about assumed viewing directions."""
        return any(assumed != "uniform" for _, assumed in self.conditions.values())

    def cells(
        self,
        conditions: Sequence[str] = (),
        objectives: Iterable[str] = ("both",),
        symmetries: Sequence[str] = (),
        seeds: Sequence[int] = (0,),
    ) -> list[Cell]:
        """The cells, in the order in which they are run: whole seeds, the bound first.

        Raises:
            InputError: a condition is not of this table.

        Example:
            >>> from cryogan.benchmark.experiments import EXPERIMENTS
            >>> len(EXPERIMENTS["table1"].cells()), len(EXPERIMENTS["table2"].cells())
            (12, 18)
        """
        for condition in conditions:
            if condition not in self.conditions:
                raise InputError(
                    f"{self.name} has no condition {condition}; give some of "
                    f"{', '.join(self.conditions)}."
                )
        methods = dict.fromkeys(method for name in objectives for method in OBJECTIVES[name])
        found: dict[Cell, None] = {}
        chosen = [self.conditions[name] for name in (conditions or self.default)]
        for seed in seeds:
            for symmetry in symmetries or self.symmetries:
                for name in dict.fromkeys(name for name, _ in chosen):
                    views = [assumed for each, assumed in chosen if each == name]
                    for cell in self._of_set(
                        Cell(name, TRUE_POSES, symmetry, seed), methods, views
                    ):
                        found[cell] = None
        return list(found)

    def _of_set(self, bound: Cell, methods: Iterable[str], views: Sequence[str]) -> Iterable[Cell]:
        yield bound
        estimates = self.compares_views and LIKELIHOOD in methods
        if LIKELIHOOD in methods:
            yield replace(
                bound, method=LIKELIHOOD, assumed=ESTIMATED if self.compares_views else "uniform"
            )
        for method in (ADVERSARIAL, COMBINED):
            if method in methods:
                for assumed in [*views, *([ESTIMATED] if estimates else [])]:
                    yield replace(bound, method=method, assumed=assumed)


def _table1() -> Experiment:
    labels = {
        "-20dB": ("−20 dB, 0 %", 0.0),
        "-5.2dB": ("−5.2 dB, 0 %", 0.0),
        "-20dB-shift3": ("−20 dB, 3 %", 3.0),
        "-20dB-shift20": ("−20 dB, 20 %", 20.0),
    }
    sets = {
        name: SetOfTable(name, label, "betagal-table1", name, percent, True)
        for name, (label, percent) in labels.items()
    }
    return Experiment(
        "table1",
        "CryoGAN, Table I: β-galactosidase",
        f"{published.CRYOGAN}, Table I",
        sets,
        {name: (name, "uniform") for name in sets},
        list(sets),
        ["D2"],
        {(name, "uniform"): values for name, values in published.TABLE_1.items()},
        [_TOLD, *_HALF_MAPS],
    )


def _table2() -> Experiment:
    names = {"uniform": "uniform", "sigma2": "σ = 2", "sigma3": "σ = 3"}
    sets = {
        f"true-{views}": SetOfTable(
            f"true-{views}",
            f"true: {label}",
            "betagal-table2",
            f"true-{views}-assumed-{views}",
            0.0,
            True,
        )
        for views, label in names.items()
    }
    conditions = {
        f"true-{true}-assumed-{assumed}": (f"true-{true}", assumed)
        for true in names
        for assumed in names
    }
    return Experiment(
        "table2",
        "CryoGAN, Table II: assumed against true viewing directions",
        f"{published.CRYOGAN}, Table II",
        sets,
        conditions,
        list(conditions),
        ["D2"],
        {(f"true-{true}", assumed): v for (true, assumed), v in published.TABLE_2.items()},
        [_SIGMA, _ESTIMATED, _TOLD, *_HALF_MAPS],
    )


def _hsp90() -> Experiment:
    line = {"latent": "uniform"}
    two = {"latent": "discrete", "classes": 2}
    sets = {
        name: SetOfTable(name, label, recipe, name, latent=latent)
        for name, label, recipe, latent in (
            ("motion1", "motion 1, 20 states", "hsp90-continuous", line),
            ("motion1-fine", "motion 1, fine steps", "hsp90-continuous", line),
            ("motion2", "motion 2, 20 states", "hsp90-continuous", line),
            ("motion2-fine", "motion 2, fine steps", "hsp90-continuous", line),
            (
                "both",
                "both motions",
                "hsp90-continuous",
                {"latent": "uniform2d", "basis_volumes": 9},
            ),
            ("homogeneous", "one state (control)", "hsp90-continuous", line),
            ("2-states", "2 states", "hsp90-discrete", two),
            ("2-states-80-20", "2 states, 80:20", "hsp90-discrete", two),
            ("4-states", "4 states", "hsp90-discrete", {"latent": "discrete", "classes": 4}),
        )
    }
    return Experiment(
        "hsp90",
        "Multi-CryoGAN: conformations of Hsp90",
        published.MULTI_CRYOGAN,
        sets,
        {name: (name, "uniform") for name in sets},
        ["motion1", "2-states"],
        ["C1"],
        {},
        [_PICTURES, _CENTRED],
    )


_TOLD = (
    "Reconstructions are told what the published ones were: the symmetry; that particles are "
    "centred, or (adversarial) how far they are shifted, where the likelihood measures the shifts; "
    "and (adversarial) the patches of background that no image was made of, where the likelihood "
    "measures the noise on the particles."
)
_HALF_MAPS = (
    "Half-map FSC: of independent half-maps (other images, other random numbers, other critics), "
    "unmasked, to the end of the map's band; no number where the verdict is *no structure*.",
    "Half-map FSC, published way: where the plain FSC of the same two half-maps first falls below "
    "0.143, whatever the verdict, band and mask. Beyond that, the published scripts begin both "
    "half-sets with the same critic, which cannot be had here.",
)
_SIGMA = (
    "σ is not defined in the publication. Here the viewing direction is N(0, diag(1, 1, σ²)), "
    "normalised (σ = 1 is uniform), and the in-plane angle uniform, in the sets and as assumed."
)
_ESTIMATED = (
    "*estimated*: the density of viewing directions that the likelihood estimates from the same "
    "images; adversarial training then draws from it, and its seconds include the likelihood's."
)
_PICTURES = (
    "No numbers of the publication, which shows pictures and curves, are known to us; its sets "
    "are made by its recipe."
)
_CENTRED = "Reconstructions are told that particles are centred."

EXPERIMENTS: Mapping[str, Experiment] = {
    each.name: each for each in (_table1(), _table2(), _hsp90())
}
