"""Makes Runs and comparisons to draw: small ones, large ones, broken ones."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from orchestrator.config.study_schema import PLOTS
from orchestrator.reporting.comparison import Comparison, RunRecord, tables


def record(label, seed=0, base=0.5, **changes):
    """A finished Run of three epochs whose accuracy ends at `base`."""
    curve = [(0, base / 2), (1, base * 0.8), (2, base)]
    history = {"val/accuracy": curve, "test/accuracy": [(2, base)]}
    name = (label.partition("[")[0], label, seed, f"{label}-{seed}")
    metrics = {"test/accuracy": base, "val/accuracy": base}
    run = RunRecord(
        *name, "FINISHED", "r", "classify", "d1c0ffee12345678", "digits", metrics, history
    )
    return replace(run, **changes)


def compared(runs, metric="test/accuracy", **reference):
    return tables(runs, Comparison(metric, None, "label", tuple(PLOTS), reference))


def study(labels, seeds, **reference):
    """Labels with a leading underscore, which matplotlib's own legends leave out."""
    names = [f"_s[lr={number},wd=0.1]" for number in range(labels)]
    runs = [
        record(name, seed, 0.3 + 0.01 * number + 0.02 * seed)
        for number, name in enumerate(names)
        for seed in range(seeds)
    ]
    return compared(runs, **reference)


BROKEN = [
    record("A", 0, math.nan, history={"val/accuracy": [(0, 0.1), (1, math.nan)]}),
    record("A", 1, 0.5),
    record("lost", 0, math.inf, history={"val/accuracy": [(0, math.inf)]}),
    record("waiting", state="PENDING"),
    record("_under$score$", 0, 0.5, history={}),
    record("elsewhere", dataset="feedbeef"),
    record("huge", 0, 0.2, history={"val/accuracy": [(0, 0.1)]}, trainable="rotation"),
]
CASES = {
    "one_run": study(1, 1),
    "few": study(4, 3),
    "few_with_reference": study(4, 3, _s=0.4),
    "many": study(12, 5, _s=0.4),
    "forty": study(40, 1),
    "broken": compared(BROKEN, A=0.3, waiting=0.2),
    "nothing_finished": compared([record("A", state="RUNNING")]),
    "diverged_loss": compared([record("A", metrics={"test/loss": 1e38})], "test/loss"),
    "nothing": [],
}


@dataclass
class Data:
    """What a plot draws, in memory; `losses` are the tables of every other metric."""

    tables: Sequence = ()
    losses: Sequence = ()
    maps: dict = field(default_factory=dict)
    rows: dict = field(default_factory=dict)
    pictures: dict = field(default_factory=dict)

    def tables_of(self, metric):
        return self.losses

    def tsne_maps(self):
        return self.maps

    def masks(self):
        return self.rows

    def produced_pictures(self, images):
        return {
            label: {name: pictures[name] for name in images if name in pictures}
            for label, pictures in self.pictures.items()
        }


def texts(figure):
    """Every text of the figure, as drawn."""
    return [text.get_text() for text in figure.findobj(lambda one: hasattr(one, "get_text"))]


def legend_of(figure):
    return [text.get_text() for text in figure.axes[0].get_legend().get_texts()]


def notes(figure):
    return figure.get_supxlabel().splitlines()
