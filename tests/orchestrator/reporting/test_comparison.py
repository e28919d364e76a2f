"""Tests of comparison tables: what makes a row, what is averaged, what is written."""

import csv
import io
import json
import math
import statistics
import subprocess
import sys
from dataclasses import replace

import pytest

from orchestrator.reporting.comparison import (
    Comparison,
    Row,
    RunRecord,
    compared_rows,
    tables,
    unfinished,
)
from orchestrator.reporting.exports import as_csv, as_json
from orchestrator.reporting.tables import as_markdown, as_text, shown
from trainables.metrics import in_percent

METRIC = "test/accuracy"


def record(label, seed=0, value=0.5, **changes):
    """A finished Run; value None: it does not report the metric."""
    metrics = {} if value is None else {METRIC: value}
    name = (label.partition("[")[0], label, seed, f"{label}-{seed}")
    run = RunRecord(*name, "FINISHED", "r", "classify", "d1c0ffee12345678", "digits", metrics, {})
    return replace(run, **changes)


def spec(metric=METRIC, stages=None, rows="label", **reference):
    return Comparison(metric, stages, rows, ("bars",), reference)


def labels(rows):
    return [row.label for row in rows]


def test_mean_and_sample_deviation_are_taken_over_seeds():
    values = [0.70, 0.72, 0.77]
    (row,) = compared_rows([record("A", seed, value) for seed, value in enumerate(values)], spec())
    assert row.n == 3
    assert row.mean == pytest.approx(0.73)
    assert row.std == pytest.approx(math.sqrt((0.03**2 + 0.01**2 + 0.04**2) / 2))
    assert row.std != pytest.approx(statistics.pstdev(values))


def test_one_seed_has_no_deviation():
    (row,) = compared_rows([record("A")], spec())
    assert (row.n, row.mean, row.std) == (1, 0.5, None)


def test_only_finished_runs_count():
    states = ("PENDING", "RUNNING", "FAILED", "KILLED", "BLOCKED")
    runs = [record("A", seed, 0.9, state=state) for seed, state in enumerate(states)]
    (row,) = compared_rows([record("A", 9, 0.5), *runs], spec())
    assert row.values == (0.5,)


def test_a_stage_that_has_not_finished_keeps_its_row_without_a_mean():
    (row,) = compared_rows([record("A", state="RUNNING"), record("A", 1, state="KILLED")], spec())
    assert (row.n, row.mean, row.std) == (0, None, None)


def test_a_stage_whose_finished_runs_lack_the_metric_has_no_row():
    runs = [record("A"), record("byol", 0, None), record("byol", 1, None, state="RUNNING")]
    assert labels(compared_rows(runs, spec())) == ["A"]


def test_a_finished_run_without_the_metric_does_not_count_where_others_have_it():
    (row,) = compared_rows([record("A", 0, 0.4), record("A", 1, None)], spec())
    assert (row.n, row.mean) == (1, 0.4)


def test_only_the_stages_asked_for_have_rows():
    runs = [record("A"), record("B"), record("C")]
    assert labels(compared_rows(runs, spec(stages=("B", "C")))) == ["B", "C"]


@pytest.mark.parametrize(
    ("rows", "expected"),
    [("label", ["A[lr=1]", "B", "A[lr=2]"]), ("stage", ["B", "A[lr=1]", "A[lr=2]"])],
)
def test_rows_follow_the_plan_or_the_stages_and_a_grid_is_never_averaged(rows, expected):
    runs = [record("A[lr=1]", 0, 0.1), record("B"), record("A[lr=2]", 0, 0.9)]
    compared = compared_rows(runs, spec(stages=("B", "A"), rows=rows))
    assert labels(compared) == expected
    assert all(row.n == 1 for row in compared)


def test_a_reference_belongs_to_the_label_else_to_the_stage_else_to_nothing():
    runs = [record("A[lr=1]"), record("A[lr=2]"), record("B")]
    compared = compared_rows(runs, spec(**{"A": 0.4, "A[lr=2]": 0.0}))
    assert [row.reference for row in compared] == [0.4, 0.0, None]
    assert compared[0].difference == pytest.approx(0.1)
    assert compared[2].difference is None


def test_different_data_sets_and_tasks_never_share_a_table():
    other = record("B", dataset="feedbeef00000000", data_name="photos")
    pretext = record("C", trainable="rotation")
    compared = tables([record("A"), other, pretext, record("D")], spec())
    assert [labels(table.rows) for table in compared] == [["A", "D"], ["B"], ["C"]]
    titles = ["classify on digits", "classify on photos", "rotation on digits"]
    assert [table.title for table in compared] == titles


def test_one_label_on_two_data_sets_is_two_rows():
    compared = compared_rows([record("A", 0, 0.2), record("A", 1, 0.8, dataset="feedbeef")], spec())
    assert [row.values for row in compared] == [(0.2,), (0.8,)]


def test_json_has_exactly_its_keys_and_raw_fractions():
    made = as_json(tables([record("A", 0, 0.45), record("A", 1, 0.55)], spec(A=0.4)))
    (row,) = made["rows"]
    assert made["gains"] == []
    keys = ["stage", "label", "metric", "n", "mean", "std", "low", "high", "reference"]
    assert list(row) == keys
    # the quantile of Student's distribution with one degree of freedom is 12.7062
    low, high = 0.0, 1.0  # 0.5 - 12.7062 * 0.0707 / sqrt(2) = -0.135 is no share
    std = pytest.approx(0.005**0.5)
    assert list(row.values()) == ["A", "A", METRIC, 2, 0.5, std, low, high, 0.4]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_not_finite_makes_the_mean_null(bad):
    compared = tables([record("A", 0, 0.5), record("A", 1, bad), record("A", 2, -bad)], spec())
    (row,) = as_json(compared)["rows"]
    assert (row["n"], row["mean"], row["std"]) == (3, None, None)
    json.dumps(row, allow_nan=False)
    assert shown(compared[0].rows[0]) == "not finite"


def test_a_diverged_loss_does_not_overflow():
    runs = [record("A", seed, None, metrics={"test/loss": 1.5e308}) for seed in range(3)]
    (row,) = compared_rows(runs, spec("test/loss"))
    assert (row.mean, row.std) == (1.5e308, 0.0)


def test_csv_reads_back_what_json_holds():
    runs = [record('A[name="a,b"]', 0, 0.1), record("B", 0, 1 / 3), record("B", 1, 0.4)]
    compared = tables([*runs, record("C", state="PENDING")], spec(B=0.5))
    read = list(csv.DictReader(io.StringIO(as_csv(compared))))
    assert all(line["kind"] == "row" for line in read)
    for line, row in zip(read, as_json(compared)["rows"], strict=True):
        assert line["label"] == row["label"]
        assert int(line["n"]) == row["n"]
        for key in ("mean", "std", "low", "high", "reference"):
            assert (float(line[key]) if line[key] else None) == row[key]
        assert (line["trainable"], line["dataset"]) == ("classify", "d1c0ffee12345678")


def test_shares_are_read_in_percent_and_nothing_else():
    shares = ("test/accuracy", "val/knn_accuracy", "val/miou", "val/iou/road")
    assert all(map(in_percent, shares))
    assert not any(map(in_percent, ("val/loss", "system/images_per_s", "val/embedding_std")))


@pytest.mark.parametrize(
    ("metric", "values", "text"),
    [
        ("test/accuracy", [0.7123], "71.23"),
        ("test/accuracy", [0.70, 0.72], "71.00"),
        ("test/loss", [0.529], "0.5290"),
        ("test/loss", [1234.5], "1234"),
        ("test/loss", [0.00001, 0.00002], "1.500e-05"),
        ("test/loss", [], "no finished Run"),
    ],
)
def test_a_row_is_shown_as_people_read_it(metric, values, text):
    runs = tuple(record("A", metrics={metric: value}) for value in values)
    assert shown(Row("A", "A", "classify", "d", "digits", metric, runs, None)) == text


def test_text_is_aligned_and_signs_the_difference():
    runs = [record("short", 0, 0.5), record("short", 1, 0.52), record("much_longer", 0, 0.4)]
    assert as_text(tables(runs, spec(short=0.6, much_longer=0.40001))).splitlines() == [
        "classify on digits",
        "label        test/accuracy (%)   95 % interval  n  reference  difference",
        "short                    51.00  38.29 to 63.71  2      60.00       -9.00",
        "much_longer              40.00               -  1      40.00       +0.00",
    ]


def test_columns_for_references_appear_only_with_a_reference():
    assert "reference" not in as_text(tables([record("A")], spec()))
    assert "difference" not in as_markdown(tables([record("A")], spec()), "Why?", "s")


def test_markdown_answers_the_question_with_one_table_a_data_set():
    other = record("C", dataset="feedbeef", data_name="photos")
    runs = [record("A[x=a|b]", 0, 0.5), record("B"), other]
    text = as_markdown(tables(runs, spec(B=0.6)), "Does it help?\n", "my_study", "1 Run is missing")
    assert text.startswith("# my_study\n\nDoes it help?\n\n## classify on digits\n")
    assert "| label | test/accuracy (%) | 95 % interval | n | reference | difference |" in text
    assert "| --- | ---: | ---: | ---: | ---: | ---: |" in text
    assert "| A[x=a\\|b] | 50.00 | - | 1 | - | - |" in text
    assert "| B | 50.00 | - | 1 | 60.00 | -10.00 |" in text
    assert "## classify on photos\n\n| label | test/accuracy (%) | 95 % interval | n |\n" in text
    assert text.endswith("by Student's t.\n\n1 Run is missing\n")


def differences(runs, *pairs, metric=METRIC):
    (compared,) = tables(runs, replace(spec(metric), differences=pairs))
    return compared.differences


def test_a_paired_difference_is_the_difference_seed_by_seed_over_the_seeds_that_both_have():
    runs = [record("A", seed, value) for seed, value in enumerate([0.5, 0.7, 0.9])]
    runs += [record("B", seed, value) for seed, value in [(3, 0.1), (1, 0.65), (0, 0.40)]]
    (difference,) = differences(runs, ("A", "B"))
    assert difference.values == pytest.approx((0.10, 0.05))
    assert (difference.n, difference.mean) == (2, pytest.approx(0.075))
    assert difference.std == pytest.approx(
        statistics.stdev([0.10, 0.05])
    )  # rows alone: 0.2 and 0.28
    (back,) = differences(runs, ("B", "A"))
    assert back.mean == pytest.approx(-0.075)


def test_grids_are_paired_by_their_values_and_one_configuration_with_all():
    runs = [record(label) for label in ("A[lr=1]", "A[lr=2]", "B[lr=2]", "B[lr=3]", "C")]
    assert [(g.first.label, g.second.label) for g in differences(runs, ("A", "B"), ("A", "C"))] == [
        ("A[lr=2]", "B[lr=2]"),
        ("A[lr=1]", "C"),
        ("A[lr=2]", "C"),
    ]


def test_differences_are_printed_under_their_table_in_points():
    runs = [record("A", 0, 0.5), record("A", 1, 0.6), record("B", 0, 0.40), record("B", 1, 0.55)]
    runs += [record("C", 0, state="FAILED")]
    compared = tables(runs, replace(spec(), differences=(("A", "B"), ("B", "A"), ("A", "C"))))
    assert as_text(compared).splitlines()[5:10] == [
        "",
        "classify on digits: difference, paired by seed",
        "labels  points     95 % interval    p  n",
        "A - B    +7.50  -24.27 to +39.27  0.2  2",
        "B - A    -7.50  -39.27 to +24.27  0.2  2",
    ]
    assert "A - C        -                 -    -  0\n" in as_text(compared)
    assert "| A - B | +7.50 | -24.27 to +39.27 | 0.2 | 2 |" in as_markdown(compared, "Why?", "s")
    assert [row["label"] for row in as_json(compared)["rows"]] == ["A", "B", "C"]


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_paired_difference_over_what_is_not_finite_is_not_finite(bad):
    (difference,) = differences([record("A"), record("B", 0, bad)], ("A", "B"))
    assert math.isnan(difference.mean) and difference.std is None


def test_an_empty_comparison_says_so():
    compared = tables([record("A")], spec("test/miou"))
    assert compared == []
    assert "No Run" in as_text(compared)
    assert "No Run" in as_markdown(compared, "Why?", "s")
    assert as_json(compared) == {
        "rows": [],
        "gains": [],
        "figures": [],
        "mixtures": [],
        "cautions": [],
        "one_class": [],
    }


def test_unfinished_names_runs_and_states():
    runs = [record("A", seed) for seed in range(8)]
    runs += [record("late_random", 1, state="KILLED"), record("B", 0, state="BLOCKED")]
    assert unfinished(runs, spec()) == (
        "2 of 10 Runs not finished: late_random seed 1 (KILLED), B seed 0 (BLOCKED)"
    )


def test_unfinished_is_silent_when_every_compared_run_counts():
    runs = [record("A"), record("other", state="FAILED")]
    assert unfinished(runs, spec(stages=("A",))) is None


def test_unfinished_also_names_finished_runs_without_the_metric():
    runs = [record("A", 0), record("A", 1, None)]
    assert unfinished(runs, spec()) == "1 finished without test/accuracy: A seed 1"


def test_unfinished_cuts_a_long_list_but_counts_all():
    line = unfinished([record("A", seed, state="PENDING") for seed in range(30)], spec())
    assert line.startswith("30 of 30 Runs not finished: A seed 0 (PENDING)")
    assert line.endswith(" and 22 more")


def test_importing_loads_neither_plots_nor_the_stack():
    code = "import sys, orchestrator.reporting.comparison; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert not {"matplotlib", "numpy", "ray", "mlflow", "torch"} & set(loaded.stdout.split())


def test_a_comparison_of_mean_iou_shows_what_the_mean_hides():
    miou = "test/miou"
    runs = [
        record("fcn", 0, metrics={miou: 0.5, "test/iou/road": 0.25, "test/iou/land": 0.75}),
        record("fcn", 1, metrics={miou: 0.55, "test/iou/road": 0.35, "test/iou/land": 0.75}),
        record("deeplab", 0, metrics={miou: 0.7, "test/iou/land": 0.7}),
    ]
    compared = tables(runs, spec(miou))
    assert as_text(compared).splitlines()[-6:] == [
        "classify on digits: test IoU of each class (%)",
        "class    label   mean  95 % interval  n",
        "land       fcn  75.00              -  2",
        "land   deeplab  70.00              -  1",
        "road       fcn  30.00  0.00 to 93.53  2",
        "road   deeplab      -              -  0",
    ]
    text = as_markdown(compared, "Which?", "s")
    assert "## classify on digits: test IoU of each class (%)" in text
    assert "| road | fcn | 30.00 | 0.00 to 93.53 | 2 |" in text
    assert "IoU" not in as_text(tables([record("A")], spec()))


def test_words_of_a_study_command_no_page() -> None:
    question = (
        '<img src="http://x/a.png"><script>a()</script> ![a](http://x/b.png) [b](javascript:a()) '
        "`c` *d* a|b & c_d\n[e]: http://x"
    )
    text = as_markdown(tables([record("tuned[lr=0.1]")], spec()), question, "<b>s")
    for command in ("<img", "<script", "<b>", "![", "](", "]:", " *d", " `c", "a|b", "& c"):
        assert command not in text
    assert "# &lt;b&gt;s\n" in text and "\\`c\\` \\*d\\* a\\|b &amp; c_d" in text
    assert "| tuned[lr=0.1] |" in text  # what is no command is left as it is
