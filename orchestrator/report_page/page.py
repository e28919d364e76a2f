"""Writes the report as one HTML file that asks for nothing: style and pictures are in it."""

import functools
import hashlib
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup

from orchestrator.config.errors import printable
from orchestrator.report_page.content import Chart, Report

_FOLDER = Path(__file__).parent
FILES = ("page.html", "style.css")  # beside this file


def render(report: Report) -> str:
    """Return the page. Every text is escaped; what would turn the direction of writing is shown as
    its code."""
    style = Markup((_FOLDER / "style.css").read_text(encoding="utf-8"))  # noqa: S704 (our own file)
    return _template().render(report=report, style=style)


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
    environment.filters["numeric"] = _is_numeric
    return environment.get_template("page.html")


def _drawing(chart: Chart) -> Markup:
    """Return the SVG of a chart, which `charts` has escaped."""
    return Markup(printable(chart.svg))  # noqa: S704


def _is_numeric(cell: str) -> bool:
    """Return whether a cell is a number or an interval, which stand on the right."""
    return cell == "-" or cell[:1].isdigit() or (cell[:1] in "+-<" and cell[1:2].isdigit())


def form_digest() -> str:
    """Return a digest of the page's form: a page of another form is made again."""
    digest = hashlib.sha256()
    for file in FILES:
        digest.update((_FOLDER / file).read_bytes())
    return digest.hexdigest()[:16]
