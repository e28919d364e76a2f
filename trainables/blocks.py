"""What a model is made of, as plain data: its blocks and what flows between them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Block:
    """name: path in the model, or a function's name; kind: what it is made of; shape: of what it
    gives for one sample; parameters, and how many of them are trained; mult_adds: multiplications
    with addition for one sample."""

    name: str
    kind: str
    shape: Shape
    parameters: int
    trained: int
    mult_adds: int


@dataclass(frozen=True)
class Architecture:
    """flows: pairs of places in `blocks`, always from a lower to a higher one. levels: of each
    block, the length of the longest way from an input."""

    title: str
    blocks: tuple[Block, ...]
    flows: tuple[tuple[int, int], ...]
    levels: tuple[int, ...]

    @property
    def parameters(self) -> int:
        return sum(block.parameters for block in self.blocks)

    @property
    def mult_adds(self) -> int:
        return sum(block.mult_adds for block in self.blocks)


def from_plain(plain: Mapping[str, Any]) -> Architecture:
    """What `dataclasses.asdict` and JSON have made of one."""
    blocks = (Block(**{**block, "shape": tuple(block["shape"])}) for block in plain["blocks"])
    flows = tuple((start, end) for start, end in plain["flows"])
    return Architecture(plain["title"], tuple(blocks), flows, tuple(plain["levels"]))


def as_text(one: Architecture) -> str:
    """A table of the blocks with their totals."""
    rows = [("block", "made of", "gives", "parameters", "multiply-adds")]
    rows += [
        (
            block.name,
            block.kind,
            shown(block.shape),
            f"{block.parameters:,}",
            f"{block.mult_adds:,}",
        )
        for block in one.blocks
    ]
    rows.append((one.title, "", "", f"{one.parameters:,}", f"{one.mult_adds:,}"))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        [cell.ljust(w) for cell, w in zip(row[:3], widths[:3], strict=True)]
        + [cell.rjust(w) for cell, w in zip(row[3:], widths[3:], strict=True)]
        for row in rows
    ]
    return "\n".join("  ".join(line).rstrip() for line in lines) + "\n"


def shown(shape: Shape) -> str:
    return " × ".join(map(str, shape))
