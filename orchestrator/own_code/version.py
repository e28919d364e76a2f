"""Compute the version of own code: of exactly the modules that it runs.

Comments, docstrings, layout, import lines and the names of modules do not count, as for the code of
this project. Modules may import each other in a circle.
"""

import ast
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from orchestrator.own_code.imports import Import, reached
from trainables.own_code.finder import Source

Write = Callable[[ast.Module, dict[str, str]], str]  # code, imported name → what to write for it
_MARK = "\x00"  # around the name of a module, until its digest stands there


@dataclass(frozen=True)
class OwnVersion:
    """The version of own code: 16 hexadecimal digits, and the modules of this project that it
    imports."""

    digest: str
    imports: tuple[str, ...]


def own_version(
    module: str,
    own: Mapping[str, Source],
    write: Write,
    name_of: Callable[[str, str], str | None],
) -> OwnVersion:
    """Return the version of a module and of all own code that it reaches.

    own: dotted name → module; write: code as text that is the same on every Python; name_of: module
    and name → what stands for an import of this project, None for another's.
    """
    found = reached(module, own)
    ours: set[str] = set()
    texts = {}
    for name, items in found.items():
        origins = {}
        for item in items:
            if item.module in found:
                origins[item.local] = f"own:{_MARK}{item.module}{_MARK}:{item.name}"
                continue
            known = name_of(item.module, item.name)
            if known is not None:
                ours |= _module_in(item)
            origins[item.local] = known or f"{item.module}:{item.name}"
        texts[name] = write(ast.parse(own[name].text), origins)
    digests = dict.fromkeys(texts, "")
    for _ in texts:  # after as many rounds each digest tells of all that its module reaches
        digests = {name: _digest(text, digests) for name, text in texts.items()}
    whole = "\0".join([digests[module], *sorted(digests.values())])
    return OwnVersion(hashlib.sha256(whole.encode()).hexdigest()[:16], tuple(sorted(ours)))


def _module_in(item: Import) -> set[str]:
    return {item.module, f"{item.module}.{item.name}" if item.name else item.module}


def _digest(text: str, digests: Mapping[str, str]) -> str:
    """Hash a text in which the names of modules are replaced by their digests."""
    pieces = text.split(_MARK)
    pieces[1::2] = [digests[name] for name in pieces[1::2]]
    return hashlib.sha256("".join(pieces).encode()).hexdigest()
