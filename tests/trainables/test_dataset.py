"""How messages about data sets list names."""

from trainables.dataset import few, near


def test_few_counts_what_it_leaves_out() -> None:
    assert few(["a", "b"]) == "a, b"
    assert few(["a", "b", "c"], most=2) == "a, b and 1 more"


def test_near_names_all_and_the_nearest_if_one_is_near() -> None:
    assert near("Artt", ("Art", "Clipart", "Product")).startswith(
        "did you mean 'Art'? there are: Art, Clipart, "
    )
    assert near("x", ["a", "b"]) == "there are: a, b"
