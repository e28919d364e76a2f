"""Says how each stage was trained: what differs from the defaults of its trainable."""

import json
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

from pydantic_core import PydanticUndefined

from orchestrator.planning.run import Run
from orchestrator.report_page.page import Grid
from orchestrator.study_data.seed_cuts import written_name
from trainables.config import Config
from trainables.schemas.registry import PRODUCER_SCHEMAS, TRAINABLE_SCHEMAS

_MOST = 8  # values of a grid that are listed


def recipes(runs: Sequence[Run]) -> tuple[Grid, ...]:
    """Return a table for each stage: key, value, default. runs: of the plan, parents first."""
    stages: dict[str, list[Run]] = {}
    for run in runs:
        stages.setdefault(run.stage, []).append(run)
    return tuple(_recipe(stage, of_stage) for stage, of_stage in stages.items())


def _recipe(stage: str, runs: Sequence[Run]) -> Grid:
    schema = _schema(runs[0].trainable)
    rows = []
    for name in dict.fromkeys(name for run in runs for name in run.config):
        values = {_shown(_written(name, run)): None for run in runs}
        default = _default(schema, name)
        if list(values) != [default]:
            rows.append((name, _listed(list(values)), default))
    seeds = ", ".join(map(str, dict.fromkeys(run.seed for run in runs)))
    first = runs[0]
    weights = str(first.config.get("weights", "random"))
    start = _stage_of(first) if first.parent_label else f"{weights} weights"
    if weights.startswith("/"):
        start = f"the file {PurePath(weights).name}"
    about = f"{first.trainable}, starts from {start}; seeds {seeds}."
    said = "What is not listed has its default value."
    return Grid(stage, ("key", "value", "default"), tuple(rows), (about, said))


def _written(name: str, run: Run) -> Any:
    """Return a value as the study has it: a data set without the fold of a Run."""
    value = run.config.get(name)
    return written_name(str(value)) if name == "dataset" else value


def _stage_of(run: Run) -> str:
    """Return the stage that a Run starts from."""
    return str(run.parent_label).partition("[")[0]


def _schema(name: str) -> type[Config] | None:
    """Return the configuration of a trainable or producer; None where this version has none of that
    name."""
    if name in TRAINABLE_SCHEMAS:
        return TRAINABLE_SCHEMAS[name].Config
    return PRODUCER_SCHEMAS[name].Config if name in PRODUCER_SCHEMAS else None


def _default(schema: type[Config] | None, name: str) -> str:
    field = schema.model_fields.get(name) if schema else None
    if field is None:
        return "not known"
    value = field.get_default(call_default_factory=True, validated_data={})
    if value is PydanticUndefined:
        return "none, it must be set"
    plain = value.model_dump(mode="json") if isinstance(value, Config) else value
    return _shown(plain)


def _shown(value: Any) -> str:
    """Return a value as a study file has it, so that equal values have equal texts."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {_shown(inner)}" for key, inner in value.items()) or "{}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_shown, value))}]"
    if value is None:
        return "none"
    return value if isinstance(value, str) else json.dumps(value)


def _listed(values: Sequence[str]) -> str:
    more = f" and {len(values) - _MOST} more" if len(values) > _MOST else ""
    return ", ".join(values[:_MOST]) + more
