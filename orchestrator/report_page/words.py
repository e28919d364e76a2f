"""Says in a few sentences what a submission has found, how sure that is, what the compared stages
start from, what a guess would reach, and what the words of the page mean."""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePath
from statistics import fmean
from typing import Any

from orchestrator.planning.run import Run
from orchestrator.reporting.comparison import Row, Table
from orchestrator.reporting.numbers import interval_text, listed, number
from orchestrator.reporting.sample import finite
from orchestrator.reporting.verdicts import Gain, gains, verdict
from orchestrator.study_data.seed_cuts import written_name
from trainables.metrics import in_percent, metric_of

_NAMED = 2  # differences that the answer states; of more it counts the rest
_TURNS = 4  # classes of the trainable rotation, whatever data it learns from
_GUESSED = ("accuracy", "balanced_accuracy", "knn_accuracy", "linear_accuracy")
_MOST = 8  # stages that a sentence names: as `listed` does
_LEARNS = {  # `train` of a classifier → what it says
    "head": "the head alone learns",
    "late": "the head and the last residual stage learn",
    "full": "all layers learn",
}
_CLEARLY = 0.005  # by which naming the most frequent class beats a guess, to be said
GLOSSARY = {  # as the page writes a word → what it means
    "stage": "a step of the study, such as a pretraining",
    "Run": "one training of a stage, with one seed",
    "label": "the name of a row: a stage, with the values that tell its configurations apart",
    "seed": "the number that decides the random choices of a Run; other seeds show the spread",
    "epoch": "one pass of a training over all its images",
    "accuracy": "the share of images whose class is found",
    "IoU": "intersection over union: of the pixels that are of a class in the truth or in the "
    "prediction, the share that is in both; mean IoU is the mean over the classes",
    "kNN accuracy": "accuracy when an image gets the class of the images whose features are "
    "nearest; it needs no head, so it can be high while the accuracy is still low",
    "validation": "images that learn nothing, by which the best epoch is chosen",
    "test": "images by which nothing is learned and nothing chosen; the figures of the answer",
    "weights": "the numbers that a network learns; random weights have learned nothing",
    "pretraining": "a training whose weights another stage starts from",
    "loss": "what training makes small: how wrong the model is",
    "95 % interval": "the range of values that fit these results; of 100 such intervals about 95 "
    "hold the true value",
    "points": "percentage points: 92 % is 2 points more than 90 %",
    "paired": "each seed of one row is compared with the same seed of the other",
    "p": "how probable a difference this large or larger would be if there were none",
    "corrected": "p made larger because several differences are tested (Holm's method); it is this "
    "one that must be below 0.05",
    "established": "shown with these seeds: the (corrected) p is below 0.05",
    "n": "the number of seeds in a row",
    "reference": "a figure that the study quotes from elsewhere",
    "sign-flip": "a test that asks how often a mean this large would come by chance, if each "
    "difference could as well have the other sign",
    "McNemar": "a test that counts the images that one of two models gets right and the other not",
    "backbone": "the network without its last part; it turns an image into features",
    "features": "the numbers into which a network turns an image",
    "head": "the last part of a network, which turns features into classes",
    "t-SNE map": "a picture that puts images near each other whose features are alike; its axes "
    "have no unit",
    "contiguous": "the values of an image lie in memory channel by channel",
    "channels_last": "the values of an image lie in memory pixel by pixel, which is often faster",
    "fingerprint": "a hash of all images, their labels and their parts: equal fingerprints are "
    "equal data",
}


def answer(tables: Sequence[Table]) -> tuple[str, ...]:
    """Return what was found, in one or two sentences: established differences first, else the
    largest ones; without differences, the best row of each table."""
    found = [gain for group in gains(tables) for gain in group]
    said = [gain for gain in found if gain.test.n]
    if not said:
        rows = [_best(table) for table in tables]
        best = tuple(filter(None, rows))[:_NAMED]
        return best or ("There is no answer yet: no compared Run has finished.",)
    established = [gain for gain in said if gain.established]
    sentences = [_sentence(gain) for gain in (established or said)[:_NAMED]]
    rest = len(said) - len(sentences)
    if rest and established:
        more = len(established) - len(sentences)
        sentences.append(
            f"Of {len(said)} differences {len(established)} are established"
            + (f", {more} more in the tables below." if more > 0 else "; the others are not.")
        )
    elif rest:
        sentences.append(f"None of the {len(said)} differences is established.")
    return tuple(sentences)


def _sentence(gain: Gain) -> str:
    """Return one sentence for readers who know no p-values."""
    difference, metric = gain.difference, gain.difference.metric
    better = {"first": (difference.first, difference.second),
              "second": (difference.second, difference.first)}  # fmt: skip
    if gain.better is None or gain.test.mean is None:
        return verdict(gain)
    one, other = better[gain.better]
    unit = "percentage points" if in_percent(metric) else metric_of(metric).unit
    by = f"{number(metric, abs(gain.test.mean))} {unit}".rstrip()
    means = [_mean_over(row, difference.seeds) for row in (one, other)]
    figure = f"{_name(metric)} {_shown(metric, means[0])} against {_shown(metric, means[1])}"
    if gain.established:
        between = interval_text(metric, gain.test.interval, "+") if gain.test.interval else ""
        name = f"{difference.first.label} minus {difference.second.label}"
        sure = f"; with {difference.repeats}, {name} lies from {between}" if between else ""
        return f"{one.label} is better than {other.label} by {by} ({figure}): established{sure}."
    return (
        f"{one.label} is ahead of {other.label} by {by} ({figure}), but this is not established: "
        f"{_doubt(gain)}."
    )


def _mean_over(row: Row, seeds: Sequence[int]) -> float | None:
    """Return the mean of a row over the seeds that a difference pairs."""
    return finite(fmean(row.by_seed[seed] for seed in seeds))


def _doubt(gain: Gain) -> str:
    test, metric = gain.test, gain.difference.metric
    if test.n == 1:
        return "it was trained with one seed only"
    if test.interval is None:
        return f"{gain.difference.repeats} do not show it"
    between = interval_text(metric, test.interval, "+")
    name = f"{gain.difference.first.label} minus {gain.difference.second.label}"
    if test.interval.low <= 0 <= test.interval.high:
        unit = " points" if in_percent(metric) else ""
        return (
            f"with {gain.difference.repeats}, the 95 % interval of {name} is {between}{unit}, "
            "which holds both a gain and a loss"
        )
    over = gain.difference.repeats
    return f"with {over} it holds alone ({name} {between}), but not among {gain.family}"


def context(
    tables: Sequence[Table], runs: Iterable[Run], stored: Mapping[str, Any]
) -> tuple[str, ...]:
    """Return what a reader must know to judge the figures: from which weights each compared stage
    starts, what of it learns where they differ in it, and what a guess would reach. runs: of the
    plan; stored: data.json."""
    runs = list(runs)
    said = [_starts(tables, runs), _trained(tables, runs), *_guesses(tables, stored)]
    return tuple(filter(None, said))


def _starts(tables: Sequence[Table], runs: Iterable[Run]) -> str:
    """Return `tuned starts from the weights of pretrain; scratch from random weights.`"""
    compared = dict.fromkeys(row.stage for table in tables for row in table.rows)
    stages: dict[str, dict[str, None]] = {}  # start → stages
    for run in runs:
        if run.stage in compared:
            start = start_of(run)
            start = f"the weights that {start} has learned" if run.parent_label else start
            stages.setdefault(start, {})[run.stage] = None
    said: list[str] = []
    for start, names in stages.items():
        several = len(names) > 1
        verb = "" if said else (" start" if several else " starts")
        said.append(f"{_joined(list(names))}{verb} from {start}")
    return "; ".join(said) + "." if said else ""


def _trained(tables: Sequence[Table], runs: Iterable[Run]) -> str:
    """Return `full trains all layers; late the head and the last residual stage.`; empty where all
    compared stages train the same."""
    compared = dict.fromkeys(row.stage for table in tables for row in table.rows)
    parts: dict[str, dict[str, None]] = {}  # what learns → stages
    for run in runs:
        if run.stage in compared and (what := _LEARNS.get(str(run.config.get("train")))):
            parts.setdefault(what, {})[run.stage] = None
    if len(parts) < 2:
        return ""
    said = [f"in {_joined(list(names))} {what}" for what, names in parts.items()]
    return "; ".join(said).replace("in ", "In ", 1) + "."


def start_of(run: Run) -> str:
    """Return what a Run starts from: a stage, or weights, such as `random weights`."""
    if run.parent_label:
        return run.parent_label.partition("[")[0]
    weights = str(run.config.get("weights", "random"))
    if weights in ("random", "imagenet"):
        return {"random": "random weights", "imagenet": "weights trained on ImageNet"}[weights]
    return f"the file {PurePath(weights).name}"


def _joined(names: Sequence[str]) -> str:
    if len(names) > _MOST:
        return listed(names)
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def _guesses(tables: Sequence[Table], stored: Mapping[str, Any]) -> list[str]:
    """Return what guessing would reach, a sentence for each data set and metric."""
    said = {}
    for table in tables:
        row = table.rows[0]
        known = [facts for name, facts in stored.items() if written_name(name) == row.data_name]
        of_folds = [facts.get("test_counts", ()) for facts in known]
        counts = [sum(column) for column in zip(*of_folds, strict=False)]
        classes = [str(name) for name in known[0].get("classes", ())] if known else []
        if guess := _guess(row, classes, counts):
            where = f" on {row.data_name}" if len({t.rows[0].data_name for t in tables}) > 1 else ""
            said[row.metric, row.data_name] = f"{guess[0]}{where} would reach {guess[1]}."
    return list(said.values())


def _guess(row: Row, classes: Sequence[str], counts: Sequence[int]) -> tuple[str, str] | None:
    """Return how one may guess, and what that reaches; None where it is not known. counts: images
    or pixels of each class in the test."""
    split, _, figure = row.metric.partition("/")
    count = _TURNS if row.trainable == "rotation" else len(classes)
    tested = split == "test" and len(counts) == count and sum(counts) > 0
    if figure in _GUESSED and count:
        said = f"a {_name(row.metric)} of {_shown(row.metric, 1 / count)}"
        share = max(counts) / sum(counts) if tested and row.trainable == "classify" else 0.0
        if figure == "accuracy" and share > 1 / count + _CLEARLY:
            most = classes[list(counts).index(max(counts))]
            said += f"; always answering {most}, the most frequent, {_shown(row.metric, share)}"
        return f"Guessing among {count} classes", said
    if figure == "miou" and tested:
        most, present = classes[list(counts).index(max(counts))], sum(c > 0 for c in counts)
        value = max(counts) / sum(counts) / present
        said = f"a {_name(row.metric)} of about {_shown(row.metric, value)}"
        return f"Predicting {most}, the most frequent class, for every pixel", said
    return None


def glossary(text: str) -> tuple[tuple[str, str], ...]:
    """Return the words of a page that need to be explained, with their meaning. text: what a reader
    of the page sees."""
    return tuple(
        (word, meaning)
        for word, meaning in GLOSSARY.items()
        if re.search(rf"(?<![\w-]){re.escape(word)}(?![\w-])", text, re.IGNORECASE)
    )


def _best(table: Table) -> str:
    """Return which row of a table has the best mean; empty where none has one."""
    rows = [row for row in table.rows if finite(row.mean) is not None]
    if not rows:
        return ""
    metric = rows[0].metric
    sign = 1 if metric_of(metric).mode == "max" else -1
    rows.sort(key=lambda row: -sign * float(row.mean or 0.0))
    best = rows[0]
    if len(rows) == 1:
        return f"{best.label} reaches {_name(metric)} {_figure(best)} ({table.title})."
    return (
        f"{best.label} has the best mean, {_name(metric)} {_figure(best)}, before "
        f"{rows[1].label} with {_figure(rows[1])} ({table.title}); the study tests no difference."
    )


def _name(metric: str) -> str:
    split, _, _ = metric.partition("/")
    return f"{split} {metric_of(metric).label}".strip()


def _figure(row: Row) -> str:
    return _shown(row.metric, finite(row.mean))


def _shown(metric: str, value: float | None) -> str:
    return f"{number(metric, value)}{' %' if in_percent(metric) else ''}"


def sureness(tables: Sequence[Table], note: str) -> tuple[str, ...]:
    """Return how sure the answer is: seeds, what an interval means, Runs that are missing. note: as
    `comparison.unfinished` returns it."""
    counts = sorted({row.n for table in tables for row in table.rows if row.n})
    said = []
    if counts == [1]:
        said.append(
            "Each configuration was trained once (one seed). Another seed gives another figure; by "
            "how much is not known."
        )
    elif counts:
        many = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
        said.append(
            f"Each configuration was trained with {many} seeds (random numbers that decide "
            f"{_drawn(tables)}). A 95 % interval is the range of means that fit these results; the "
            "wider it is, the less is known."
        )
    if any(group for group in gains(tables)):
        said.append(
            "A difference is called established where its p-value is below 0.05; of several "
            "differences, after a correction for their number. Not established does not mean equal."
        )
    if note:
        said.append(f"Not counted: {note}.")
    return tuple(said)


def _drawn(tables: Sequence[Table]) -> str:
    """Return what the seeds decide: `first weights and order of images`."""
    runs = [run for table in tables for row in table.rows for run in row.runs]
    names = {"init": "first weights", "order": "order of images"}
    said = [name for what, name in names.items() if any(what in run.vary for run in runs)]
    if any(len(row.tested_folds) > 1 for table in tables for row in table.rows):
        said.append("which fold of the images is the test")
    if any(row.splits > 1 for table in tables for row in table.rows):
        said.append("how the images are cut into parts")
    return " and ".join([", ".join(said[:-1]), said[-1]] if len(said) > 1 else said)
