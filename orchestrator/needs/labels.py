"""Labels of nodes: which nodes a study may use. A selector has the form that Ray 2.60 knows: `a`,
`!a`, `in(a, b)` or `!in(a, b)`.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Annotated

from pydantic import Field

_WORD = r"[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?"  # a value, as in Kubernetes
_SELECTOR = re.compile(rf"(!?)(?:in\(({_WORD}(?:, ?{_WORD})*)\)|({_WORD}))")
_NAME = rf"^(?:[a-z0-9](?:[a-z0-9.-]{{0,251}}[a-z0-9])?/)?{_WORD}$"
LabelName = Annotated[str, Field(pattern=_NAME)]


def selector_of(value: str | Sequence[str]) -> str:
    """Return what a study writes as one selector: a list means any of its values. Raises
    ValueError."""
    text = value if isinstance(value, str) else f"in({', '.join(value)})"
    if not _SELECTOR.fullmatch(text):
        raise ValueError(
            f"{text!r} is no value of a label: write `a`, `[a, b]` for any of both, or `!a`; "
            "letters, digits, '.', '_' and '-', 63 at most"
        )
    return text


def matches(selectors: Mapping[str, str], labels: Mapping[str, str]) -> bool:
    """Return whether a node with these labels is one of those that the selectors name. A node
    without a label fits `!a`."""
    return all(_fits(text, labels.get(name)) for name, text in selectors.items())


def _fits(selector: str, value: str | None) -> bool:
    found = _SELECTOR.fullmatch(selector)
    if found is None:
        raise ValueError(f"{selector!r} is no selector")
    negated, several, one = found.groups()
    values = re.split(", ?", several) if several else [one]
    return (value in values) != bool(negated)
