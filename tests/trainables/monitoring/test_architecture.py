"""An architecture outlives JSON, and its table names and adds up all blocks."""

import json
from dataclasses import asdict

from trainables.monitoring.architecture import Architecture, Block, as_text, from_plain

ONE = Architecture(
    "Net",
    (
        Block("input", "", (3, 8, 8), 0, 0, 0),
        Block("conv", "Conv2d 3×3, ReLU", (8, 8, 8), 1_216, 1_216, 12_000),
        Block("output", "", (8, 8, 8), 0, 0, 0),
    ),
    ((0, 1), (1, 2)),
    (0, 1, 2),
)


def test_what_json_has_kept_is_the_same() -> None:
    assert from_plain(json.loads(json.dumps(asdict(ONE)))) == ONE


def test_the_table_ends_with_the_totals() -> None:
    lines = as_text(ONE).splitlines()
    assert [line.split()[0] for line in lines] == ["block", "input", "conv", "output", "Net"]
    assert lines[2].split() == [
        "conv", "Conv2d", "3×3,", "ReLU", "8", "×", "8", "×", "8", "1,216", "12,000",
    ]  # fmt: skip
    assert lines[-1].split() == ["Net", "1,216", "12,000"]
