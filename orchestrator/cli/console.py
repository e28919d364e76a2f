"""Prints what several commands share: messages, service addresses, tables that fit the terminal."""

import argparse
import re
import textwrap
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from rich.cells import cell_len
from rich.console import Console, ConsoleDimensions, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from orchestrator.clusters.settings import choose_cluster, with_mlflow
from orchestrator.config.errors import printable
from orchestrator.config.mlflow_settings import MlflowSettings, read_settings

if TYPE_CHECKING:  # what asks for services takes a third of a second to load
    from orchestrator.services.record import Services

_NARROWEST = 20  # columns; COLUMNS=0, and a terminal that has none, are taken for 80


class Terminal(Console):
    """Prints tables and messages. No text of a study or of a folder commands the terminal."""

    @property
    def size(self) -> ConsoleDimensions:
        width, height = super().size
        return ConsoleDimensions(max(width, _NARROWEST) if width > 0 else 80, height)

    @size.setter
    def size(self, size: tuple[int, int]) -> None:
        self._width, self._height = size

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterator[Segment]:
        for text, style, control in super().render(renderable, options):
            yield Segment(text if control else printable(text), style, control)


MESSAGES = Terminal(stderr=True, highlight=False, soft_wrap=True)
_GAP = "  "  # between two columns
_INDENT = "    "  # of lines that belong to the row above


def say(text: str) -> None:
    """Print a text to standard output; what would command the terminal is shown as text."""
    print(printable(text))


def settings_of(options: argparse.Namespace) -> MlflowSettings:
    """Return the settings of MLflow: of the cluster that `--cluster` names, else of mlflow.yaml."""
    cluster = choose_cluster(getattr(options, "cluster", None), options.mlflow)
    return with_mlflow(read_settings(options.mlflow), cluster)


def show_services(services: "Services", out: Console) -> None:
    """Print the addresses of MLflow and of the Ray dashboard."""
    ray = services.ray
    mlflow = services.mlflow_uri or services.trouble or "not running"
    out.print(f"\nMLflow         {mlflow}", soft_wrap=True, markup=False)
    out.print(f"Ray dashboard  {ray.dashboard_url if ray else 'not running'}", soft_wrap=True)
    if ray and ray.token_path:
        out.print(f"               log in with the content of {ray.token_path}\n", soft_wrap=True)


class Column(NamedTuple):
    """One column of a FittedTable.

    rank: 0 for a column that every width shows; of the others the highest rank leaves the row
    first when the terminal is narrow.
    """

    name: str
    rank: int = 0
    right: bool = False  # aligned to the right, for numbers


class Row(NamedTuple):
    """One row of a FittedTable. cells: one for each column, the first is the row's label.

    note: a text of any length, printed below the row.
    """

    cells: tuple[str, ...]
    style: str = ""
    note: str = ""


@dataclass(frozen=True)
class FittedTable:
    """A table that fits the width of the terminal and never breaks a word.

    Columns that do not fit leave the row by their rank. The label (the first column) is always
    whole: where it is too long, it continues on the next line after a separator.
    """

    columns: Sequence[Column]
    rows: Sequence[Row]
    details: bool = False  # columns that do not fit, and notes in full, go to lines below the row
    caption: str = ""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text]:
        for line in self.lines(options.max_width):
            line.no_wrap = True
            yield line

    def lines(self, width: int) -> Iterator[Text]:
        """The lines of the table, each at most `width` character cells wide."""
        shown = self._columns_that_fit(width)
        widths = [self._width(number) for number in shown]
        room = width - sum(widths[1:]) - len(_GAP) * (len(widths) - 1)
        widths[0] = min(widths[0], max(room, len(_INDENT)))
        header = tuple(column.name for column in self.columns)
        yield self._line(header, shown, widths, "dim")
        for row in self.rows:
            if max(map(cell_len, map(str.strip, pieces(row.cells[0])))) > widths[0]:
                # a word of the label is wider than its column: the label stands above its row
                above, below = wrapped(row.cells[0], width), [""]
            else:
                above, below = [], wrapped(row.cells[0], widths[0])
            yield from (Text(part, row.style) for part in above)
            yield self._line((below[0], *row.cells[1:]), shown, widths, row.style)
            yield from (Text(f"  {part}", row.style) for part in below[1:])
            yield from (Text(_INDENT + part, row.style) for part in self._below(row, shown, width))
        yield from map(Text, textwrap.wrap(self.caption, width))

    def _columns_that_fit(self, width: int) -> list[int]:
        """Return the numbers of the columns in the row: without empty ones, without those that do
        not fit."""
        shown = [
            number
            for number, column in enumerate(self.columns)
            if not column.rank or any(row.cells[number] for row in self.rows)
        ]
        label = min(self._width(0), width // 2)  # a longer one takes a second line first
        while label + sum(len(_GAP) + self._width(number) for number in shown[1:]) > width:
            last = max(shown, key=lambda number: self.columns[number].rank)
            if not self.columns[last].rank:
                break
            shown.remove(last)
        return shown

    def _width(self, number: int) -> int:
        texts = [self.columns[number].name, *(row.cells[number] for row in self.rows)]
        return max(map(cell_len, texts))

    def _line(
        self, cells: Sequence[str], shown: Sequence[int], widths: Sequence[int], style: str
    ) -> Text:
        parts = []
        for number, width in zip(shown, widths, strict=True):
            space = " " * (width - cell_len(cells[number]))
            right = self.columns[number].right
            parts.append(space + cells[number] if right else cells[number] + space)
        return Text(_GAP.join(parts).rstrip(), style)

    def _below(self, row: Row, shown: Sequence[int], width: int) -> list[str]:
        """Return what stands below a row: with details all of it, else the note in one line."""
        room = width - len(_INDENT)
        if not self.details:
            note = " ".join(row.note.split())
            return [shortened(note, room)] if note else []
        left_out = " · ".join(
            f"{column.name}: {row.cells[number]}"
            for number, column in enumerate(self.columns)
            if number not in shown and row.cells[number]
        )
        paragraphs = [left_out, *row.note.splitlines()]
        return [
            line
            for text in paragraphs
            for line in textwrap.wrap(text, room, break_on_hyphens=False)
        ]


def pieces(label: str) -> list[str]:
    """Return the parts of a label between which a line may end: after `[`, `,`, `/`, before ` seed
    0`."""
    return re.findall(r"(?:[^\[,/ ]| (?=\d))*(?:[\[,/]| (?!\d))|(?:[^\[,/ ]| (?=\d))+", label)


def wrapped(label: str, width: int) -> list[str]:
    """Return a label in lines of at most `width`, which end after a separator where there is
    one."""
    lines = [""]
    for piece in pieces(label):
        if cell_len(lines[-1] + piece.rstrip()) > width and lines[-1]:
            lines.append("")
        lines[-1] += piece
        while cell_len(lines[-1].rstrip()) > width:  # a piece that is longer than a line
            lines[-1:] = [lines[-1][:width], lines[-1][width:]]
    return [line.rstrip() for line in lines]


def shortened(text: str, width: int) -> str:
    """Return a text in at most `width` characters: whole words, then `…` where it was cut."""
    return textwrap.shorten(text, width, placeholder=" …", break_on_hyphens=False)


def show_decoding(out: Console) -> Callable[[str, int, int], None]:
    """Return a function that prints the progress of decoding, at most every two seconds."""
    last = [time.monotonic()]

    def show(name: str, done: int, total: int) -> None:
        if time.monotonic() - last[0] > 2:
            last[0] = time.monotonic()
            out.print(f"decoding {name}: {done}/{total} images")

    return show
