"""Names what the report of a submission holds, as plain data: `gather` fills it, `page` writes it.

All texts are plain: `page` escapes them. Only `Chart.svg` is markup.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Chart:
    """A drawing as inline SVG. about: what it shows, for those who do not see it."""

    title: str
    about: str
    svg: str


@dataclass(frozen=True)
class Picture:
    """A picture of a Run. uri: the PNG file itself, as a data URI; width, height: in px."""

    title: str
    about: str
    uri: str
    width: int
    height: int


@dataclass(frozen=True)
class Grid:
    """A table: its header, its rows of as many cells, and sentences below it."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    sentences: tuple[str, ...] = ()
    charts: tuple[Chart, ...] = ()


@dataclass(frozen=True)
class Pair:
    """A line of a list: a name and what holds for it."""

    name: str
    text: str


@dataclass(frozen=True)
class DataFacts:
    """A data set: where it comes from, how many images each part has, what was left out."""

    name: str
    facts: tuple[Pair, ...]
    remarks: tuple[str, ...]


@dataclass(frozen=True)
class Repeat:
    """How to train the study again. steps: what to do, with a command or without; study_file: the
    study as YAML, with its paths shortened; versions: of what it ran with."""

    steps: tuple[Pair, ...]
    study_file: str
    versions: tuple[Pair, ...]


@dataclass(frozen=True)
class Report:
    """All that the page says, in its order."""

    study: str
    question: str
    state: str  # how many Runs have finished, and when the page was made
    answer: tuple[str, ...]  # one or two sentences
    sureness: tuple[str, ...]  # how sure it is
    grids: tuple[Grid, ...]
    curves: tuple[Chart, ...]
    pictures: tuple[Picture, ...]
    pictures_left_out: str  # how many, and why; empty where none was
    recipes: tuple[Grid, ...]
    data: tuple[DataFacts, ...]
    cost: Grid
    cost_facts: tuple[Pair, ...]
    failures: Grid | None  # None: nothing failed
    repeat: Repeat
