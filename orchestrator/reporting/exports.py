"""Writes a comparison as JSON and CSV, for programs: shares in [0, 1], all digits."""

import csv
import io
from collections.abc import Sequence
from typing import Any

from orchestrator.reporting.comparison import Row, Table
from orchestrator.reporting.mixtures import mixtures, one_class
from orchestrator.reporting.sample import finite
from orchestrator.reporting.verdicts import Gain, gains, verdict
from orchestrator.statistics.images import ImageTest
from trainables.metrics import METRICS, metric_of

ROW_KEYS = ("stage", "label", "metric", "n", "mean", "std", "low", "high", "reference")
GAIN_KEYS = (
    "first", "second", "metric", "n", "mean", "std", "low", "high", "p", "p_holm", "p_sign_flip",
    "established", "ahead", "seeds_needed", "seeds", "verdict", "images",
)  # fmt: skip
_CSV_COLUMNS = (
    "kind", "label", "minus", "stage", "metric", "n", "mean", "std", "low", "high", "reference",
    "p", "p_holm", "p_sign_flip", "established", "seeds_needed", "images", "images_mean",
    "images_low", "images_high", "images_p", "trainable", "dataset",
)  # fmt: skip


def as_json(tables: Sequence[Table]) -> dict[str, list[dict[str, Any]]]:
    """Return `rows` with the keys ROW_KEYS, `gains` with GAIN_KEYS, and `figures`: the rows of the
    other figures that the study asks for, and of mean IoU those of each class. `mixtures`: facts in
    which the Runs of a table are not alike, as value → labels. `cautions`: why figures of a data
    set may be too good. `one_class`: Runs that predict one class for everything, as class → labels.

    low, high: the 95 % interval of the mean. Null stands for a number that is not finite or
    undefined, such as an interval of one seed.
    """
    rows = [_plain_row(row) for table in tables for row in table.rows]
    differences = [_plain_gain(gain) for group in gains(tables) for gain in group]
    figures = [_plain_row(row) for table in tables for row in _figure_rows(table)]
    mixed = [
        {"table": table.title, "fact": fact, "values": values}
        for table in tables
        for fact, values in mixtures(table).items()
    ]
    cautions = [
        {"table": table.title, "caution": line} for table in tables for line in table.cautions
    ]
    alone = [
        {"table": table.title, "values": values} for table in tables if (values := one_class(table))
    ]
    return {
        "rows": rows,
        "gains": differences,
        "figures": figures,
        "mixtures": mixed,
        "cautions": cautions,
        "one_class": alone,
    }


def as_csv(tables: Sequence[Table]) -> str:
    """Return a line for each row (`kind` row) and its other figures (`kind` figure), then for each
    difference (`kind` difference: `label` minus `minus`), with what JSON holds; empty for null."""
    out = io.StringIO()
    writer = csv.DictWriter(out, _CSV_COLUMNS, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    for table in tables:
        lines = [("row", row) for row in table.rows]
        for kind, row in [*lines, *(("figure", row) for row in _figure_rows(table))]:
            place = {"trainable": row.trainable, "dataset": row.dataset}
            writer.writerow({"kind": kind, **_plain_row(row), **place})
    for gain in (gain for group in gains(tables) for gain in group):
        row, plain = gain.difference.first, _plain_gain(gain)
        place = {"trainable": row.trainable, "dataset": row.dataset}
        names = {"kind": "difference", "label": plain["first"], "minus": plain["second"]}
        images = plain["images"] or {}
        of_images = {f"images_{key}": images.get(key) for key in ("mean", "low", "high", "p")}
        counted = {**of_images, "images": images.get("n")}
        writer.writerow({**names, **plain, **counted, **place})
    return out.getvalue()


def _figure_rows(table: Table) -> list[Row]:
    of_classes = metric_of(table.rows[0].metric) is METRICS["miou"]
    figures = (*([METRICS["iou"].name] if of_classes else []), *table.figures)
    return [row for figure in figures for row in table.rows_of(figure)]


def _plain_row(row: Row) -> dict[str, Any]:
    values = {"low": None, "high": None} | (row.interval._asdict() if row.interval else {})
    values |= {key: getattr(row, key) for key in ROW_KEYS if key not in values}
    return _plain({key: values[key] for key in ROW_KEYS})


def _plain_gain(gain: Gain) -> dict[str, Any]:
    test, difference = gain.test, gain.difference
    low, high = test.interval or (None, None)
    first, second = difference.first.label, difference.second.label
    values = (
        first, second, difference.metric, test.n, test.mean, test.std, low, high, test.p,
        gain.p_holm, test.sign_flip, gain.established,
        {"first": first, "second": second, None: None}[gain.better], gain.seeds_needed,
        list(difference.seeds), verdict(gain), _plain_images(difference.images),
    )  # fmt: skip
    return _plain(dict(zip(GAIN_KEYS, values, strict=True)))


def _plain_images(test: ImageTest | None) -> dict[str, Any] | None:
    """Return a test over images: their number `n`, the `mean` difference over pairs of models, its
    interval over images, `p`, and of accuracies `mcnemar`, the exact p of each seed."""
    if test is None:
        return None
    low, high = test.interval
    ps = {str(seed): p for seed, p in zip(test.seeds, test.mcnemar, strict=bool(test.mcnemar))}
    values = {"n": test.images, "mean": test.mean, "low": low, "high": high, "p": test.p}
    return {**_plain(values), "seeds": list(test.seeds), "mcnemar": ps}


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    """Return values as JSON can hold them."""
    return {k: finite(v) if isinstance(v, float) else v for k, v in values.items()}
