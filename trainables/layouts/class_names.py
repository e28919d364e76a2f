"""Compares names of classes: two that look alike are mostly one class, written by two people."""

import re
import unicodedata
from collections.abc import Sequence

from trainables.dataset import DataError, few

_UNSAFE = re.compile(r"[^\w .\-]")
_BETWEEN = re.compile(r"[\s_]+")


def alike(classes: Sequence[str]) -> list[list[str]]:
    """Return groups of names that differ by case, spaces, underscores or Unicode form alone."""
    groups: dict[str, list[str]] = {}
    for name in classes:
        groups.setdefault(_plain(name), []).append(name)
    return [names for names in groups.values() if len(names) > 1]


def warning_of(classes: Sequence[str]) -> str | None:
    """Return a warning that names the classes which look alike; None where there are none."""
    groups = [" and ".join(_shown(name) for name in names) for names in alike(classes)]
    if not groups:
        return None
    return (
        "warning: classes differ by case, spaces or Unicode form alone: "
        f"{few(groups)}: give them one name if they mean the same"
    )


def safe_names(names: Sequence[str]) -> tuple[str, ...]:
    """Return names that may be a part of a metric's or a file's name, each another one.

    Letters of any script, digits, spaces and - _ . stay; every other character becomes -.
    """
    safe: list[str] = []
    for name in names:
        text = _UNSAFE.sub("-", unicodedata.normalize("NFC", name)).strip() or "-"
        text = f"-{text}" if set(text) == {"."} else text
        number, candidate = 1, text
        while candidate in safe:
            number += 1
            candidate = f"{text}-{number}"
        safe.append(candidate)
    return tuple(safe)


def _plain(name: str) -> str:
    text = unicodedata.normalize("NFKC", name)
    visible = "".join(letter for letter in text if unicodedata.category(letter) != "Cf")
    folded = unicodedata.normalize("NFKC", visible.casefold())
    # numbers keep their underscores: 1_1 is not 11
    return _BETWEEN.sub("", folded) if re.search(r"[^\W\d_]", folded) else folded.strip()


def _shown(name: str) -> str:
    """Quote a name; where it has letters of its own kind, show their codes: é may be one or two."""
    return ascii(name) if not name.isascii() else repr(name)


_SURROGATE = re.compile("[\ud800-\udfff]")  # stands for a byte that is not UTF-8


def check_text(names: list[str]) -> None:
    """Raise DataError where a name is not UTF-8: it is in hashes, tables and pages."""
    bad = [name for name in names if not name.isascii() and _SURROGATE.search(name)]
    if bad:
        raise DataError(f"names that are not UTF-8: {few(bad)}: rename these files or folders")
