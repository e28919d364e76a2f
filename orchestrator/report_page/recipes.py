"""Says how each stage was trained: what differs from the defaults of its trainable, each setting
with what it means."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic_core import PydanticUndefined

from orchestrator.planning.run import Run
from orchestrator.report_page.page import Recipe, Setting
from orchestrator.report_page.words import start_of
from orchestrator.reporting.schema_reference import keys_of, module_about
from orchestrator.study_data.seed_cuts import written_name
from trainables.config import Config
from trainables.schemas.producer import ProducerSchema
from trainables.schemas.registry import PRODUCER_SCHEMAS, TRAINABLE_SCHEMAS
from trainables.schemas.trainable import TrainableSchema

_MOST = 8  # values of a grid that are listed
_LETTERS = 90  # of a meaning: a longer one ends with its first part


def recipes(runs: Sequence[Run]) -> tuple[Recipe, ...]:
    """Return how each stage was trained. runs: of the plan, parents first."""
    stages: dict[str, list[Run]] = {}
    for run in runs:
        stages.setdefault(run.stage, []).append(run)
    return tuple(_recipe(stage, of_stage) for stage, of_stage in stages.items())


def _recipe(stage: str, runs: Sequence[Run]) -> Recipe:
    first, kind = runs[0], _kind(runs[0].trainable)
    schema = kind.Config if kind else None
    meanings = meanings_of(schema) if schema else {}
    settings = []
    for name in dict.fromkeys(name for run in runs for name in run.config):
        values = {_shown(_written(name, run)): None for run in runs}
        default = _default(schema, name)
        if list(values) != [default]:
            meaning = meanings.get(name, "")
            settings.append(Setting(name, meaning, _listed(list(values)), default))
    seeds = ", ".join(map(str, dict.fromkeys(run.seed for run in runs)))
    what = f"{first.trainable}, starts from {start_of(first)}; seeds {seeds}."
    return Recipe(stage, module_about(kind) if kind else "", what, tuple(settings))


def meanings_of(schema: type[Config]) -> dict[str, str]:
    """Return setting → what it means, in at most a line."""
    return {key.name: _short(key.meaning) for key in keys_of(schema)}


def _short(meaning: str) -> str:
    text = meaning.partition("; default:")[0].partition(". Default:")[0]
    return text if len(text) <= _LETTERS else text.partition(";")[0]


def _written(name: str, run: Run) -> Any:
    """Return a value as the study has it: a data set without the fold of a Run."""
    value = run.config.get(name)
    return written_name(str(value)) if name == "dataset" else value


def _kind(name: str) -> type[TrainableSchema] | type[ProducerSchema] | None:
    """Return the schema of a trainable or producer; None where this version has none of that
    name."""
    return TRAINABLE_SCHEMAS.get(name) or PRODUCER_SCHEMAS.get(name)


def _default(schema: type[Config] | None, name: str) -> str:
    field = schema.model_fields.get(name) if schema else None
    if field is None:
        return "not known"
    value = field.get_default(call_default_factory=True, validated_data={})
    if value is PydanticUndefined:
        return "must be set"
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
