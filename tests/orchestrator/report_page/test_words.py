"""What a guess would reach, by metric and by what is known of the data."""

from typing import Any

import pytest

from orchestrator.report_page.words import context
from tests.orchestrator.reporting.samples import compared, record

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
