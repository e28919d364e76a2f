"""Gather what the report of a submission says, from what MLflow has of it.

It is imported when a report is made: numpy, scipy and matplotlib take a second to load.
"""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml

from orchestrator.plots import loss
from orchestrator.plots.curves import curves_data
from orchestrator.report_page.charts import curves_chart, intervals_chart, pairs_chart
from orchestrator.report_page.facts import (
    Price,
    cost_grid,
    data_facts,
    failures,
    hardware,
    repeat,
)
from orchestrator.report_page.page import Chart, Grid, Report
from orchestrator.report_page.pictures import pictures
from orchestrator.report_page.recipes import recipes
from orchestrator.report_page.words import answer, context, sureness
from orchestrator.reporting.comparison import State, Table, unfinished
from orchestrator.reporting.tables import printed_parts
from orchestrator.tracking.comparison_data import ComparisonData, compared_tables
from orchestrator.tracking.mlflow_client import MlflowReader, TrackingError, wall_seconds
from orchestrator.tracking.run_states import Submission, comparison, records, with_curves

_MOST_PAIRS = 12  # differences whose seeds are drawn


def gather(reader: MlflowReader, submission: Submission, price: Price) -> Report:
    """Return the report of a submission as MLflow has it now. Raises TrackingError."""
    plan, spec = submission.plan, comparison(submission.plan)
    runs = records(submission)
    tables = compared_tables(reader, runs, spec)
    study = _yaml(reader, submission.tracked.run_id, "study.yaml")
    stored = _json(reader, submission.tracked.run_id, "data.json")
    planned = [item.run for item in submission.runs]
    shown, left_out = pictures(reader, submission)
    grids = tuple(_grids(tables))
    return Report(
        study=str(plan["study"]),
        question=str(plan["question"]).strip(),
        state=_state(submission),
        answer=(*answer(tables), *_rest(submission)),
        context=context(tables, planned, stored),
        sureness=sureness(tables, unfinished(runs, spec) or ""),
        grids=grids,
        curves=tuple(_curves(reader, submission)),
        pictures=shown,
        pictures_left_out=left_out,
        recipes=recipes(planned),
        data=data_facts(stored, study, planned),
        cost=cost_grid(submission, price),
        cost_facts=hardware(submission, wall_seconds(reader, submission.tracked)),
        failures=failures(submission.runs, submission.searches),
        repeat=repeat(submission, study),
    )


def _rest(submission: Submission) -> tuple[str, ...]:
    """Return a sentence where not all has finished: the answer may still change."""
    ended = sum(item.state == State.FINISHED for item in submission.runs)
    if submission.finished:
        return ()
    return (f"This is not final: {ended} of {len(submission.runs)} Runs have finished.",)


def _state(submission: Submission) -> str:
    ended = sum(item.state == State.FINISHED for item in submission.runs)
    parts = [f"{ended} of {len(submission.runs)} Runs finished"]
    if submission.searches:
        done = sum(item.state == State.FINISHED for item in submission.searches)
        parts.append(f"{done} of {len(submission.searches)} searches finished")
    return f"{'; '.join(parts)}; page made on {time.strftime('%Y-%m-%d %H:%M %Z')}"


def _grids(tables: Sequence[Table]) -> Iterator[Grid]:
    """Yield every table that `compare` prints, with its charts."""
    charts: dict[str, list[Chart | None]] = {}
    for table in tables:
        charts[table.title] = [intervals_chart(table)]
        title = f"{table.title}: difference, paired by seed"
        charts[title] = [pairs_chart(item) for item in table.differences[:_MOST_PAIRS]]
    for part in printed_parts(tables):
        header, *rows = part.cells or [[]]
        drawn = tuple(filter(None, charts.get(part.title, ())))
        lines = tuple(map(tuple, rows))
        yield Grid(part.title, tuple(header), lines, part.sentences, drawn)


def _curves(reader: MlflowReader, submission: Submission) -> Iterator[Chart]:
    """Yield the compared metric over the epochs, then the validation loss of every stage."""
    spec = comparison(submission.plan)
    runs = with_curves(records(submission), reader, spec, loss.PLOT.histories)
    data = ComparisonData(reader, submission, runs)
    compared = data.tables
    panels = curves_data(compared)
    panels += curves_data(data.tables_of(loss.METRIC), compared)
    yield from filter(None, map(curves_chart, panels))


def _json(reader: MlflowReader, run_id: str, file: str) -> Mapping[str, Any]:
    return _mapping(json.loads(_text(reader, run_id, file) or "{}"))


def _yaml(reader: MlflowReader, run_id: str, file: str) -> Mapping[str, Any]:
    return _mapping(yaml.safe_load(_text(reader, run_id, file) or "{}"))


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _text(reader: MlflowReader, run_id: str, file: str) -> str:
    """Return a text of a submission; empty where an earlier version has not stored it."""
    try:
        return reader.text(run_id, file)
    except TrackingError as error:
        if error.answered:
            return ""
        raise
