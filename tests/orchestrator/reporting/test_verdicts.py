"""Tests of what is said of differences: what is established, what is not, and what cannot be."""

import csv
import io
import json
import math
from dataclasses import replace

import pytest

from orchestrator.reporting.comparison import tables
from orchestrator.reporting.exports import GAIN_KEYS, as_csv, as_json
from orchestrator.reporting.tables import as_latex, as_text
from orchestrator.reporting.verdicts import gains, verdict
from tests.orchestrator.reporting.test_comparison import record, spec
from trainables.metrics import METRICS

FIRST, SECOND = [0.484, 0.462, 0.506], [0.420, 0.446, 0.457]  # +6.4, +1.6, +4.9 points


def made(first, second, *pairs, metric="test/accuracy", **more):
    """The tables of stages A and B, and of those in `more`, from their values by seed."""
    runs = [
        record(label, seed, None, metrics={metric: value})
        for label, values in {"A": first, "B": second, **more}.items()
        for seed, value in enumerate(values)
        if value is not None
    ]
    return tables(runs, replace(spec(metric), differences=pairs or (("A", "B"),)))


def said(*values, **more):
    (group,) = gains(made(*values, **more))
    return [verdict(gain) for gain in group]


def test_a_difference_that_three_seeds_do_not_show_is_not_established():
    """Mean 4.3, s 2.4556 points: 4.3 ± 4.302653 * 2.4556 / √3 = 4.3 ± 6.10; t = 3.033, p 0.094."""
    assert said(FIRST, SECOND) == [
        "A is ahead of B by 4.30 points; with 3 seeds -1.80 to +10.40: not established (p 0.094). "
        "About 5 seeds would show it if it stays."
    ]
    assert said(SECOND, FIRST) == [
        "A is behind B by 4.30 points; with 3 seeds -10.40 to +1.80: not established (p 0.094). "
        "About 5 seeds would show it if it stays."
    ]


def test_a_difference_that_seeds_show_is_established():
    (line,) = said([0.51, 0.52, 0.545], [0.44, 0.45, 0.465])
    assert (
        line
        == "A is ahead of B by 7.33 points; with 3 seeds +5.90 to +8.77: established (p 0.0021)."
    )
    (line,) = said([0.5 + 0.01 * k for k in range(7)], [0.4 + 0.009 * k for k in range(7)])
    assert line.endswith("established (p <0.001, sign-flip 0.016).")


def test_lower_is_better_where_the_metric_says_so():
    (line,) = said([0.30, 0.31, 0.35], [0.40, 0.42, 0.43], metric="test/loss")
    assert line.startswith("A is ahead of B by 0.09667 (lower is better); with 3 seeds -0.1")
    (line,) = said([0.5, 0.42, 0.43], [0.3, 0.31, 0.35], metric="test/loss")
    assert line.startswith("A is behind B by 0.1300 (lower is better)")


def test_a_metric_with_a_unit_names_it():
    (line,) = said([3.0, 5.0, 4.0], [1.0, 2.0, 2.0], metric="sam/masks")
    assert line.startswith("A is ahead of B by 2.333 masks; with 3 seeds +0.8991 to +3.768")


@pytest.mark.parametrize(("first", "second", "line"), [
    ([0.5], [0.4], "A is ahead of B by 10.00 points, with one seed: nothing can be said about "
                   "others."),
    ([0.5], [0.5], "A equals B, with one seed: nothing can be said about others."),
    ([0.5, None], [None, 0.4], "A and B have no seed in common: nothing can be said."),
    ([0.5, math.nan], [0.4, 0.4], "A and B: a value is not finite, so nothing can be said."),
    ([0.5, math.inf], [0.4, math.inf], "A and B: a value is not finite, so nothing can be said."),
    ([0.5, 0.6], [0.5, 0.6], "A equals B with 2 seeds: no seed differs."),
    ([0.5, 0.6, 0.7], [0.4, 0.5, 0.6], "A is ahead of B by 10.00 points, with 3 seeds that all "
                                       "differ by as much: there is no interval, not established."),
])  # fmt: skip
def test_what_cannot_be_said_is_said(first, second, line):
    assert said(first, second) == [line]


def test_a_seed_that_only_one_of_two_has_is_named():
    (line,) = said([0.5, 0.6, 0.62, None], [0.4, None, 0.5, 0.3])
    assert "with 2 seeds" in line
    assert line.endswith("Seeds that only one of them has do not count: 1, 3.")


def test_what_is_established_alone_may_not_be_among_several():
    """p of A - B is 0.034, of the others above 0.5: three times 0.034 is more than 0.05."""
    more = {"C": [0.45, 0.50, 0.46], "D": [0.46, 0.47, 0.49]}
    first, second = [0.53, 0.52, 0.56], [0.45, 0.48, 0.49]
    (alone,) = said(first, second)
    assert "established (p 0.034)" in alone and "not established" not in alone
    lines = said(first, second, ("A", "B"), ("C", "D"), ("B", "D"), **more)
    assert "not established among 3 differences (p 0.034, corrected 0.1)" in lines[0]


def test_no_line_of_words_is_wider_than_eighty_characters():
    pairs = (("A", "B"), ("late_rotation", "late_random"), ("B", "late_random"))
    more = {"late_rotation": FIRST[::-1], "late_random": SECOND[::-1]}
    text = as_text(made(FIRST, SECOND, *pairs, **more))
    assert max(map(len, text.splitlines())) <= 80
    assert "(with 3: 0.25 at best)" in text
    assert "3 differences are tested, so each p is corrected by Holm's method" in text


def test_json_and_csv_hold_what_is_said():
    compared = made(FIRST, [*SECOND[:2], None])
    (gain,) = as_json(compared)["gains"]
    assert tuple(gain) == GAIN_KEYS
    assert (gain["first"], gain["second"], gain["ahead"], gain["n"]) == ("A", "B", "A", 2)
    assert gain["mean"] == pytest.approx(0.04)
    assert gain["low"] == pytest.approx(0.04 - 12.706205 * 0.048 / 2, abs=1e-6)
    assert gain["seeds"] == [0, 1] and gain["established"] is False
    assert gain["p_sign_flip"] is None
    line = list(csv.DictReader(io.StringIO(as_csv(compared))))[-1]
    assert (line["kind"], line["label"], line["minus"]) == ("difference", "A", "B")
    for key in ("mean", "std", "low", "high", "p", "p_holm"):
        assert float(line[key]) == gain[key]


def test_json_of_what_is_not_finite_is_json():
    compared = made([math.nan, 0.5], [0.4, math.inf])
    text = json.dumps(as_json(compared), allow_nan=False)
    (gain,) = json.loads(text)["gains"]
    assert (gain["n"], gain["mean"], gain["low"], gain["p"]) == (2, None, None, None)
    assert gain["verdict"] == "A and B: a value is not finite, so nothing can be said."


def test_latex_escapes_and_closes_every_table():
    text = as_latex(made(FIRST, SECOND, ("A", "C_d"), C_d=SECOND))
    assert text.count(r"\begin{tabular}{lrrr") == text.count(r"\end{tabular}") == 2
    assert r"A - C\_d & +4.30 & -1.80 to +10.40 & 0.094 & 3 \\" in text
    assert r"test/accuracy (\%)" in text


def test_what_a_search_has_chosen_is_not_judged_by_validation():
    asked = replace(spec("val/accuracy"), searched=("A",))
    runs = [record(label, metrics={"val/accuracy": 0.5, "test/accuracy": 0.5}) for label in "AB"]
    warned = (
        "A: chosen by validation, so too good in val/accuracy. Compare by a figure of the test."
    )
    assert warned in " ".join(as_text(tables(runs, asked)).split())
    assert "chosen" not in as_text(tables(runs, replace(asked, metric="test/accuracy")))
    assert "chosen" not in as_text(tables(runs, replace(asked, searched=())))


def test_every_registered_metric_has_a_direction_that_words_follow():
    for metric in METRICS.values():
        (line,) = said([3.0, 3.1, 3.2], [1.0, 1.2, 1.1], metric=f"val/{metric.name}")
        assert ("is ahead of" in line) == (metric.mode == "max"), metric


def of_folds(folds, first, second, seeds=None, **facts):
    runs = [
        record(label, seed, value, fold=seed % folds, folds=folds, facts=facts)
        for label, values in (("A", first), ("B", second))
        for seed, value in zip(seeds or range(len(values)), values, strict=True)
    ]
    return tables(runs, replace(spec("test/accuracy"), differences=(("A", "B"),)))


def test_folds_are_compared_by_the_corrected_test_and_said():
    """Differences 1 to 5 points: see `test_five_folds_by_hand`. A has mean 53, s² 2.5 points²."""
    first, second = [0.51, 0.52, 0.53, 0.54, 0.55], [0.50] * 5
    made = of_folds(5, first, second, test_images="20")
    text = " ".join(as_text(made).split())
    assert "Each seed tests another fold of the data set, so each mean is over folds." in text
    assert "corrected resampled t, Nadeau and Bengio 2003" in text
    assert (
        "A is ahead of B by 3.00 points; with 5 folds +0.06 to +5.94: established (p 0.047)."
        in (text)
    )
    assert "A 53.00 50.06 to 55.94 5" in text
    assert "The test sets of 5 folds have together 100 images" in text
    assert "sign-flip" not in text and "would show it" not in text and "are not tested" not in text


def test_folds_that_no_seed_tests_are_said_below_the_table():
    made = of_folds(5, [0.5, 0.6, 0.5], [0.5, 0.5, 0.6], seeds=[0, 1, 6])
    text = " ".join(as_text(made).split())
    assert "A, B: 2 of 5 folds; the images of the others are not tested." in text
    assert "with 3 seeds and 2 folds" in text


def test_one_fold_with_several_seeds_is_compared_as_ever():
    made = of_folds(3, FIRST, SECOND, seeds=[0, 3, 6])
    ((gain,),) = gains(made)
    assert verdict(gain) == said(FIRST, SECOND)[0]
    assert "Each seed tests" not in as_text(made)


def test_a_winner_of_a_search_was_chosen_by_images_that_folds_test():
    (table,) = of_folds(3, FIRST, SECOND)
    text = " ".join(as_text([replace(table, searched=("A",))]).split())
    assert "A: the search chose by validation images of one fold" in text


def of_splits(first, second, ratio, **facts):
    runs = [
        record(label, seed, value, split=seed, test_ratio=ratio, facts=facts)
        for label, values in (("A", first), ("B", second))
        for seed, value in enumerate(values)
    ]
    return tables(runs, replace(spec("test/accuracy"), differences=(("A", "B"),)))


def test_splits_are_compared_by_the_corrected_test_and_said():
    """With a ratio of 1 / 4 the figures are those of five folds: see the test of folds above."""
    made = of_splits([0.51, 0.52, 0.53, 0.54, 0.55], [0.50] * 5, 0.25, test_images="20")
    text = " ".join(as_text(made).split())
    assert "Each seed cuts the images anew, so each mean is over splits." in text
    assert "corrected resampled t, Nadeau and Bengio 2003" in text
    assert (
        "A is ahead of B by 3.00 points; with 5 splits +0.06 to +5.94: established (p 0.047)."
        in text
    )
    assert "A 53.00 50.06 to 55.94 5" in text
    assert "The test set of each seed has 20 images" in text
    assert "sign-flip" not in text and "would show it" not in text and "fold" not in text


def test_splits_of_training_images_alone_have_the_plain_test():
    plain = of_splits([0.51, 0.52, 0.53, 0.54, 0.55], [0.50] * 5, 0.0, test_images="20")
    text = " ".join(as_text(plain).split())
    assert "Each seed draws training and validation images anew" in text
    assert "not about new images" in text and "Nadeau" not in text
    assert "with 5 seeds +1.04 to +4.96: established" in text  # 3 ± 2.776 * sqrt(2.5 / 5)
    assert "The test set has 20 images" in text


def test_a_winner_of_a_search_was_chosen_by_images_that_splits_test():
    (table,) = of_splits([0.51, 0.52], [0.50] * 2, 0.25)
    text = as_text([replace(table, searched=("A",))])
    assert "A: the search chose by validation images of one split" in " ".join(text.split())


@pytest.mark.parametrize(("vary", "words"), [
    (("init",), "The seeds vary the first weights alone."),
    (("order",), "The seeds vary the order of images, augmentation and dropout alone."),
    (("split",), "The seeds vary the split alone. The first weights and the order of images, "
     "augmentation and dropout are those of seed 0"),
    (("init", "split"), "The seeds vary the first weights and the split alone."),
    (("init", "order"), ""),
    (("init", "order", "split"), ""),
])  # fmt: skip
def test_a_table_says_what_its_seeds_vary(vary, words):
    runs = [record("A", seed, 0.5 + seed / 100, vary=vary) for seed in range(3)]
    text = " ".join(as_text(tables(runs, spec("test/accuracy"))).split())
    assert words in text and ("The seeds vary" in text) == bool(words)
