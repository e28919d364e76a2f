"""What a guess would reach, by metric and by what is known of the data; what of a stage learns."""

from typing import Any

import pytest

from orchestrator.report_page.words import context
from tests.orchestrator.reporting.samples import compared, record
from tests.orchestrator.tracking.test_run_states import planned

CLASSES = ["ground", "water", "road", "absent"]
COUNTED = {"digits": {"classes": CLASSES, "test_counts": [600, 300, 100, 0]}}


@pytest.mark.parametrize(
    ("trainable", "metric", "stored", "said"),
    [
        (
            "classify", "test/accuracy", COUNTED,
            "Guessing among 4 classes would reach a test accuracy of 25.00 %; always answering "
            "ground, the most frequent, 60.00 %.",
        ),
        (
            "classify", "test/balanced_accuracy", COUNTED,
            "Guessing among 4 classes would reach a test balanced accuracy of 25.00 %.",
        ),
        (  # 0.6 of that class, 0 of the two others that are there
            "segment", "test/miou", COUNTED,
            "Predicting ground, the most frequent class, for every pixel would reach a test mean "
            "IoU of about 20.00 %.",
        ),
        (
            "rotation", "test/accuracy", COUNTED,
            "Guessing among 4 classes would reach a test accuracy of 25.00 %.",
        ),
        ("segment", "test/miou", {"digits": {"classes": CLASSES}}, ""),  # of an earlier version
        ("classify", "test/loss", COUNTED, ""),
        ("classify", "test/accuracy", {}, ""),
    ],
)  # fmt: skip
def test_a_guess_is_told_where_it_is_known(
    trainable: str, metric: str, stored: dict[str, Any], said: str
) -> None:
    run = record("A", metrics={metric: 0.5}, trainable=trainable)
    assert " ".join(context(compared([run], metric), [], stored)) == said


def test_what_learns_is_told_where_stages_differ_in_it() -> None:
    parts = {"tuned": "full", "head": "head", "scratch": "full"}
    runs = [planned(stage, config={"train": what}) for stage, what in parts.items()]
    tables = compared([record(stage) for stage in parts])
    assert context(tables, runs, {})[1:] == (
        "In tuned and scratch all layers learn; in head the head alone learns.",
    )
    alike = compared([record("tuned"), record("scratch")])
    assert context(alike, runs, {}) == ("tuned and scratch start from random weights.",)
