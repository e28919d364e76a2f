"""Classes that two people wrote in two ways are warned of; others are left alone."""

import pytest

from trainables.layouts.class_names import alike, warning_of


@pytest.mark.parametrize(
    "pair",
    [
        ("Mug", "mug"), ("mug", "mug "), ("coffee mug", "coffee  mug"), ("coffeemug", "coffee mug"),
        ("coffee_mug", "coffee mug"), ("caf\u00e9", "cafe\u0301"), ("STRASSE", "stra\u00dfe"),
        ("mug", "m\u200bug"), ("mug", "\uff4dug"), ("a\u00a0b", "a b"), ("1a", "1A"),
    ],
)  # fmt: skip
def test_names_that_differ_in_writing_alone_are_alike(pair: tuple[str, str]) -> None:
    assert alike(["other", *pair]) == [list(pair)]


@pytest.mark.parametrize(
    "names",
    [("Mug", "Mugs"), ("1_1", "11"), ("1", "01"), ("-1", "1"), ("cafe", "caf\u00e9"), ("a", "b")],
)
def test_other_names_are_not(names: tuple[str, ...]) -> None:
    assert alike(names) == []
    assert warning_of(names) is None


def test_the_warning_names_them() -> None:
    assert warning_of(("Bed", "Mug", "bed", "mug ", "caf\u00e9", "cafe\u0301", "car")) == (
        "warning: classes differ by case, spaces or Unicode form alone: 'Bed' and 'bed', 'Mug' and "
        "'mug ', 'caf\\xe9' and 'cafe\\u0301': give them one name if they mean the same"
    )
