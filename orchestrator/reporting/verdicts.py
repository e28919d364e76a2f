"""Says in words what the paired differences of a comparison show, and what they do not show."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from orchestrator.reporting.comparison import PairedDifference, Row, Table
from orchestrator.reporting.numbers import number, p_text
from orchestrator.reporting.sample import finite
from orchestrator.statistics.intervals import share_interval
from orchestrator.statistics.multiple import holm
from orchestrator.statistics.paired import ALPHA, LEAST_PAIRS, PairedTest, least_sign_flip_p
from orchestrator.statistics.power import MOST, seeds_needed
from trainables.metrics import in_percent, metric_of

# what seeds draw where a study does not say it → its words
_DRAWN = {
    "init": "the first weights",
    "order": "the order of images, augmentation and dropout",
}


@dataclass(frozen=True)
class Gain:
    """A paired difference with its test among all that the comparison makes.

    p_holm: p of the paired t test (of the sign-flip test where all differences are equal),
    corrected by Holm's method for `family` differences; None where there is no p.
    """

    difference: PairedDifference
    p_holm: float | None
    family: int

    @property
    def test(self) -> PairedTest:
        return self.difference.test

    @property
    def established(self) -> bool:
        """Return whether the corrected p is below 0.05."""
        return self.p_holm is not None and self.p_holm < ALPHA

    @property
    def better(self) -> Literal["first", "second"] | None:
        """Return which one is ahead in the mean, by the direction of the metric."""
        mean = finite(self.test.mean)
        if not mean:
            return None
        is_first = (mean > 0) == (metric_of(self.difference.metric).mode == "max")
        return "first" if is_first else "second"

    @property
    def seeds_needed(self) -> int | None:
        """Return about how many seeds would show a difference that is not established; None where
        that cannot be said, as of folds and splits, or for more than a thousand."""
        test = self.test
        if (
            self.difference.overlap
            or self.established
            or test.interval is None
            or test.mean is None
            or test.std is None
        ):
            return None
        needed = seeds_needed(test.mean, test.std, ALPHA / self.family)
        return None if needed is None else max(needed, test.n + 1)


def gains(tables: Sequence[Table]) -> list[list[Gain]]:
    """Return the differences of each table. All of a comparison are corrected together."""
    differences = [difference for table in tables for difference in table.differences]
    tests = [difference.test for difference in differences]
    ps = holm([test.sign_flip if test.p is None else test.p for test in tests])
    family = sum(p is not None for p in ps)
    made = iter([Gain(d, p, family) for d, p in zip(differences, ps, strict=True)])
    return [[next(made) for _ in table.differences] for table in tables]


def verdict(gain: Gain) -> str:
    """Return what a difference shows, in one or two sentences."""
    difference, test = gain.difference, gain.test
    first, second = difference.first.label, difference.second.label
    if test.n == 0:
        return f"{first} and {second} have no seed in common: nothing can be said."
    if not test.finite or test.mean is None:
        return f"{first} and {second}: a value is not finite, so nothing can be said."
    said = f"{first} {_relation(gain)} {second}{_amount(gain)}"
    if test.n == 1:
        return f"{said}, with one seed: nothing can be said about others.{_left_out(difference)}"
    return f"{said}{_conclusion(gain)}{_left_out(difference)}"


def _relation(gain: Gain) -> str:
    return {"first": "is ahead of", "second": "is behind", None: "equals"}[gain.better]


def _amount(gain: Gain) -> str:
    """Return by how much, such as ` by 4.29 points`."""
    if gain.better is None or gain.test.mean is None:
        return ""
    metric = gain.difference.metric
    unit = "points" if in_percent(metric) else metric_of(metric).unit
    lower = " (lower is better)" if metric_of(metric).mode == "min" else ""
    return f" by {number(metric, abs(gain.test.mean))} {unit}".rstrip() + lower


def _conclusion(gain: Gain) -> str:
    test, metric = gain.test, gain.difference.metric
    seeds = f"with {gain.difference.repeats}"
    if test.interval is None and gain.better is None:
        return f" {seeds}: no seed differs."
    if test.interval is None:
        state = "established" if gain.established else "not established"
        return f", {seeds} that all differ by as much: there is no interval, {state}{_ps(gain)}."
    low, high = (number(metric, end, "+") for end in test.interval)
    said = f"; {seeds} {low} to {high}: "
    if gain.established:
        return f"{said}established{_ps(gain)}."
    among = f" among {gain.family} differences" if (test.p or 1) < ALPHA else ""
    return f"{said}not established{among}{_ps(gain)}.{_needed(gain)}"


def _needed(gain: Gain) -> str:
    if gain.better is None or gain.difference.overlap:  # more seeds make no new images
        return ""
    needed = gain.seeds_needed
    count = f"More than {MOST}" if needed is None else f"About {needed}"
    return f" {count} seeds would show it if it stays."


def _ps(gain: Gain) -> str:
    """Return ` (p 0.03, corrected 0.09, sign-flip 0.06)`, as far as there are any."""
    test = gain.test
    parts = [f"p {p_text(test.p)}"] if test.p is not None else []
    if gain.family > 1 and gain.p_holm is not None:
        parts.append(f"corrected {p_text(gain.p_holm)}")
    if test.sign_flip is not None:
        parts.append(f"sign-flip {p_text(test.sign_flip)}")
    return f" ({', '.join(parts)})" if parts else ""


def _left_out(difference: PairedDifference) -> str:
    """Name the seeds that one of the two lacks."""
    if not difference.unpaired:
        return ""
    seeds = ", ".join(map(str, difference.unpaired[:8]))
    more = " and more" if len(difference.unpaired) > 8 else ""
    return f" Seeds that only one of them has do not count: {seeds}{more}."


def image_words(group: Sequence[Gain]) -> list[str]:
    """Return what a test over images is about, McNemar's p of each seed, and what could not be
    tested."""
    said = []
    tested = [gain for gain in group if gain.difference.images is not None]
    if tested:
        said.append(
            "This holds for these trained models alone, on images such as these. Whether another "
            "training would give the same, only the difference over seeds tells. These p are not "
            "corrected for several tests."
        )
    for gain in tested:
        test, difference = gain.difference.images, gain.difference
        if test is not None and len(test.mcnemar) > 1:
            ps = zip(test.seeds, test.mcnemar, strict=True)
            listed = ", ".join(f"seed {seed}: p {p_text(p)}" for seed, p in list(ps)[:8])
            names = f"{difference.first.label} - {difference.second.label}"
            said.append(f"{names}, by McNemar's exact test of each seed: {listed}.")
    for gain in group:
        if gain.difference.remark:
            names = f"{gain.difference.first.label} and {gain.difference.second.label}"
            said.append(f"{names} are not compared over images: {gain.difference.remark}.")
    if unkept := list(dict.fromkeys(name for gain in group for name in gain.difference.unkept)):
        more = f" and {len(unkept) - 8} more" if len(unkept) > 8 else ""
        said.append(
            f"Not tested over images: {', '.join(unkept[:8])}{more}. No predictions are kept of "
            "Runs that an earlier version trained."
        )
    return said


def words_on_searches(table: Table) -> list[str]:
    """Return a warning where what a search has chosen is compared by validation figures, which it
    was chosen by."""
    labels = [row.label for row in table.rows if row.stage in table.searched and row.runs]
    if not labels or not table.rows[0].metric.startswith("val/"):
        return []
    return [
        f"{', '.join(labels)}: chosen by validation, so too good in {table.rows[0].metric}. "
        "Compare by a figure of the test."
    ]


def words_on_test_set(table: Table) -> list[str]:
    """Return how uncertain an accuracy is by the number of test images alone."""
    counts = {_tested_images(row) for row in table.rows if row.runs}
    means = [mean for row in table.rows if (mean := finite(row.mean)) is not None]
    row = table.rows[0]  # pixels of one image are not independent: no such error of a segmentation
    if (
        len(counts) != 1
        or not means
        or (row.trainable, row.metric) != ("classify", "test/accuracy")
    ):
        return []
    if not (count := next(iter(counts))):
        return []
    ends = [(mean, share_interval(mean * count, count)) for mean in means]
    most = max(max(mean - low, high - mean) for mean, (low, high) in ends)
    return [
        f"{_test_set(table)} {count:,} images: others of as many could change each accuracy by up "
        f"to {100 * most:.1f} points (95 %, binomial), in addition to the spread over seeds."
    ]


def _test_set(table: Table) -> str:
    folds = max(len(row.tested_folds) for row in table.rows)
    if folds > 1:
        return f"The test sets of {folds} folds have together"
    varies = any(row.splits > 1 and row.overlap for row in table.rows)
    return "The test set of each seed has" if varies else "The test set has"


def _tested_images(row: Row) -> int:
    """Return the number of images that a row's Runs test, of all their folds together; 0 where it
    is not known or where two Runs disagree."""
    counts = {(run.fold, run.facts.get("test_images", "")) for run in row.runs}
    if len({fold for fold, _ in counts}) < len(counts) or not all(n.isdigit() for _, n in counts):
        return 0
    return sum(int(number) for _, number in counts)


def words_on_seeds(table: Table) -> list[str]:
    """Return what the seeds of a table draw, where they do not draw both weights and order."""
    drawn = {run.vary for row in table.rows for run in row.runs}
    return [words for vary in sorted(drawn) if (words := _words_on_seed_zero(vary))]


def _words_on_seed_zero(vary: tuple[str, ...]) -> str:
    """Return what is that of seed 0, where seeds do not draw it; empty where they do."""
    fixed = [text for what, text in _DRAWN.items() if what not in vary]
    if not fixed:
        return ""
    varied = [text for what, text in _DRAWN.items() if what in vary]
    told = " and ".join([*varied, *(["the split"] if "split" in vary else [])])
    kept = " and ".join(fixed)
    return (
        f"The seeds vary {told} alone. {kept[0].upper()}{kept[1:]} are those of seed 0, so the "
        "spread says nothing about them."
    )


def words_on_splits(table: Table) -> list[str]:
    """Return what rows mean of whose Runs each has a split of its own."""
    rows = [row for row in table.rows if row.splits > 1]
    if not rows:
        return []
    if not any(row.overlap for row in rows):
        return [
            "Each seed draws training and validation images anew, out of the same images, and all "
            "test the same. The intervals are about other draws of that kind, and not about new "
            "images."
        ]
    said = [
        "Each seed cuts the images anew, so each mean is over splits. The training sets of two "
        "splits share images, and so do their test sets. The intervals and p allow for that "
        "(corrected resampled t, Nadeau and Bengio 2003), which is an approximation."
    ]
    if chosen := [row.label for row in rows if row.stage in table.searched]:
        said.append(
            f"{', '.join(chosen)}: the search chose by validation images of one split, which other "
            "splits test, so the mean may be too good."
        )
    return said


def words_on_folds(table: Table) -> list[str]:
    """Return what rows mean whose Runs test different folds."""
    rows = [row for row in table.rows if len(row.tested_folds) > 1]
    if not rows:
        return []
    said = [
        "Each seed tests another fold of the data set, so each mean is over folds. The training "
        "sets of two folds share images. The intervals and p allow for that (corrected resampled "
        "t, Nadeau and Bengio 2003), which is an approximation."
    ]
    partly: dict[str, list[str]] = {}
    for row in rows:
        if len(row.tested_folds) < row.runs[0].folds:
            of = f"{len(row.tested_folds)} of {row.runs[0].folds}"
            partly.setdefault(of, []).append(row.label)
    said += [
        f"{', '.join(labels)}: {of} folds; the images of the others are not tested."
        for of, labels in partly.items()
    ]
    if chosen := [row.label for row in rows if row.stage in table.searched]:
        said.append(
            f"{', '.join(chosen)}: the search chose by validation images of one fold, which other "
            "folds test, so the mean may be too good."
        )
    return said


def caveats(gains: Iterable[Gain]) -> list[str]:
    """Return what holds for the differences together, a sentence each."""
    tested = [gain for gain in gains if gain.p_holm is not None]
    said = []
    independent = [gain.test.n for gain in tested if not gain.difference.overlap]
    if few := [n for n in independent if n < LEAST_PAIRS]:
        n = max(few)
        said.append(
            f"With fewer than {LEAST_PAIRS} seeds no sign-flip test, which assumes no "
            f"distribution, can reach 0.05 (with {n}: {least_sign_flip_p(n):.3g} at best). The "
            "intervals assume normally distributed differences."
        )
    if len(tested) > 1:
        said.append(
            f"{len(tested)} differences are tested, so each p is corrected by Holm's method; the "
            "intervals are not."
        )
    return said
