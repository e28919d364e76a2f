"""Names what the report of a submission holds, and writes it as one HTML file that asks for
nothing: style, charts and pictures are in it.

`gather` fills a `Report` with plain texts, which are escaped here. Only `Chart.svg` is markup.
"""

import functools
import hashlib
import html
import re
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup

from orchestrator.config.errors import printable
from orchestrator.report_page.words import glossary

_FOLDER = Path(__file__).parent
_MARKUP = re.compile(r"<style>.*?</style>|<[^>]*>", re.DOTALL)


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
    """A line of a list: a name, what holds for it, and what the name means."""

    name: str
    text: str
    meaning: str = ""


@dataclass(frozen=True)
class Setting:
    """A setting of a stage: its key in the study file, what that means, its value and default."""

    key: str
    meaning: str
    value: str
    default: str


@dataclass(frozen=True)
class Recipe:
    """Says how a stage was trained. about: what its trainable does; what: its trainable, start and
    seeds; settings: those that differ from the default."""

    stage: str
    about: str
    what: str
    settings: tuple[Setting, ...]


@dataclass(frozen=True)
class DataFacts:
    """A data set: where it comes from, how many images each part has, what was left out."""

    name: str
    facts: tuple[Pair, ...]
    remarks: tuple[str, ...]


@dataclass(frozen=True)
class Repeat:
    """Says how to train the study again. steps: what to do, with a command or without; study_file:
    the study as YAML, with its paths shortened; versions: of what it ran with."""

    steps: tuple[Pair, ...]
    study_file: str
    versions: tuple[Pair, ...]


@dataclass(frozen=True)
class Report:
    """Holds all that the page says, in its order."""

    study: str
    question: str
    state: str  # how many Runs have finished, and when the page was made
    answer: tuple[str, ...]  # one or two sentences
    context: tuple[str, ...]  # what each label starts from, what guessing would reach
    sureness: tuple[str, ...]  # how sure it is
    grids: tuple[Grid, ...]
    curves: tuple[Chart, ...]
    pictures: tuple[Picture, ...]
    pictures_left_out: str  # how many, and why; empty where none was
    recipes: tuple[Recipe, ...]
    data: tuple[DataFacts, ...]
    cost: Grid
    cost_facts: tuple[Pair, ...]
    failures: Grid | None  # None: nothing failed
    repeat: Repeat


def render(report: Report) -> str:
    """Return the page, with the meaning of those words that it uses. Every text is escaped; what
    would turn the direction of writing is shown as its code."""
    style = Markup((_FOLDER / "style.css").read_text(encoding="utf-8"))  # noqa: S704 (our own file)
    template = _template()
    first = template.render(report=report, style=style, words=())
    words = glossary(html.unescape(_MARKUP.sub(" ", first)))
    return template.render(report=report, style=style, words=words)


@functools.cache
def _template() -> Template:
    environment = Environment(
        loader=FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: printable(value) if type(value) is str else value,
    )
    environment.filters["drawing"] = _drawing
    environment.filters["prose"] = _prose
    environment.filters["numeric"] = _is_numeric
    return environment.get_template("page.html")


def _drawing(chart: Chart) -> Markup:
    """Return the SVG of a chart, which `charts` has escaped."""
    return Markup(printable(chart.svg))  # noqa: S704


def _prose(text: str) -> Markup:
    """Return a sentence, escaped: what stands between two ` as code, and no line broken before
    %."""
    escaped = str(Markup.escape(printable(text)))
    marked = re.sub(r"`([^`]+)`", r"<code>\1</code>", escaped)
    return Markup(marked.replace(" %", "\u00a0%"))  # noqa: S704 (escaped above)


def _is_numeric(cell: str) -> bool:
    """Return whether a cell is a number or an interval, which stand on the right."""
    return cell == "-" or cell[:1].isdigit() or (cell[:1] in "+-<" and cell[1:2].isdigit())


def form_digest() -> str:
    """Return a digest of what makes the page, this room: a page of another form is made again."""
    digest = hashlib.sha256()
    for file in sorted(_FOLDER.glob("*.*")):
        if file.suffix in (".py", ".html", ".css"):
            digest.update(file.read_bytes())
    return digest.hexdigest()[:16]
