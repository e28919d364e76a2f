"""Tests of what a table says of Runs that were not trained alike."""

from dataclasses import replace

import pytest

from orchestrator.reporting.comparison import tables
from orchestrator.reporting.exports import as_json
from orchestrator.reporting.mixtures import mixture_words, mixtures, one_class_words
from orchestrator.reporting.tables import as_markdown, as_text
from tests.orchestrator.reporting.test_comparison import record, spec

CPU = {"precision": "float32, contiguous", "device": "cpu", "torch": "2.14.1", "workers": "1"}
GPU = {**CPU, "precision": "bfloat16, channels-last", "device": "NVIDIA A100"}


def made(*facts_by_seed):
    """The table of A and B, from the facts of their Runs by seed."""
    runs = [
        record(label, seed, 0.5 + seed / 100, facts=facts)
        for label, of_seeds in zip("AB", facts_by_seed, strict=True)
        for seed, facts in enumerate(of_seeds)
    ]
    (table,) = tables(runs, spec())
    return table


@pytest.mark.parametrize("facts", [CPU, {}, {"threads": "2"}])
def test_runs_that_are_alike_or_do_not_say_need_no_words(facts):
    table = made([facts, facts], [facts])
    assert mixture_words(table) == [] and mixtures(table) == {}
    assert as_json([table])["mixtures"] == []


def test_runs_that_are_not_alike_are_named_below_their_table():
    table = made([CPU, GPU, GPU], [CPU, {}])
    said = [
        "Not alike in precision: float32, contiguous (A seed 0; B seed 0), "
        "bfloat16, channels-last (A seeds 1, 2).",
        "Not alike in device: cpu (A seed 0; B seed 0), NVIDIA A100 (A seeds 1, 2).",
    ]
    assert mixture_words(table) == said
    text = as_text([table])
    assert all(line in " ".join(text.split()) for line in said)
    assert max(map(len, text.splitlines())) <= 80
    assert as_json([table])["mixtures"][1] == {
        "table": "classify on digits", "fact": "device",
        "values": {"cpu": ["A seed 0", "B seed 0"], "NVIDIA A100": ["A seeds 1, 2"]},
    }  # fmt: skip


def test_two_sides_of_a_difference_that_are_not_alike_are_named():
    newer = {**CPU, "torch": "2.15.0", "workers": "4"}
    assert mixture_words(made([CPU, CPU], [newer, newer])) == [
        "Not alike in torch version: 2.14.1 (A), 2.15.0 (B).",
        "Not alike in number of workers: 1 (A), 4 (B).",
    ]


def test_a_run_that_went_on_otherwise_is_named():
    changed = {**CPU, "resumed_with": "from epoch 3 device cpu → NVIDIA A100"}
    assert mixture_words(made([CPU], [changed])) == [
        "B seed 0 did not train alike all the time: from epoch 3 device cpu → NVIDIA A100."
    ]


def test_copies_that_are_kept_stand_below_the_table_of_their_data_set() -> None:
    line = "5 of 17 test images are in train too, by content (a = b); kept (`on_duplicates: keep`)"
    cautions = {"digits": (line,), "others": ("nothing of this table",)}
    made = tables([record("A"), record("A", 1)], replace(spec(), cautions=cautions))
    said = as_text(made)
    assert "Data digits: 5 of 17 test images are in train too" in said
    assert "nothing of this table" not in said
    assert max(map(len, said.splitlines())) <= 80
    assert as_json(made)["cautions"] == [
        {"table": "classify on digits", "caution": f"Data digits: {line}."}
    ]
    escaped = line.replace("`", r"\`")
    assert f"- Data digits: {escaped}." in as_markdown(made, "Why?", "s")


def test_runs_that_predict_one_class_alone_are_named_below_their_table():
    alone = {**CPU, "one_class": "photograph"}
    table = made([alone, alone], [CPU, alone, CPU])
    said = ["A predicts 'photograph' everywhere.", "B seed 1 predicts 'photograph' everywhere."]
    assert one_class_words(table) == said
    assert all(line in as_text([table]) for line in said)
    values = {"photograph": ["A", "B seed 1"]}
    assert as_json([table])["one_class"] == [{"table": "classify on digits", "values": values}]
    fine = made([CPU], [CPU])
    assert one_class_words(fine) == [] and as_json([fine])["one_class"] == []


@pytest.mark.parametrize(
    ("trainable", "metric"), [("classify", "test/accuracy"), ("segment", "test/miou")]
)
def test_a_winner_of_a_search_that_predicts_one_class_is_named(trainable: str, metric: str) -> None:
    """Of a classifier and of a segmentation, beside the stage as it is written."""
    facts = {**CPU, "one_class": "photograph"}
    runs = [
        record("A[lr=0.1]", 0, 0.5, trainable=trainable, metrics={metric: 0.5}, facts=facts),
        record("A_default", 0, 0.4, trainable=trainable, metrics={metric: 0.4}, facts=CPU),
    ]
    made = tables(runs, replace(spec(metric), searched=("A",)))
    assert "A[lr=0.1] predicts 'photograph' everywhere." in as_text(made)
