"""Describe every key that a study file may hold: as rows, as text of 80 columns, as Markdown.

All of it comes from the pydantic schemas. The study reference in orchestrator/config is what
`python -m orchestrator describe --markdown` prints.
"""

import inspect
import json
import re
import sys
import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.config.mlflow_settings import (
    ClusterSettings,
    MailSettings,
    MlflowSettings,
    NotifySettings,
    OwnSettings,
    PriceSettings,
    TokenSource,
)
from orchestrator.config.search_schema import Search, Then
from orchestrator.config.study_schema import CompareSpec, Seeds, StageFile, StudyFile
from orchestrator.needs.deaths import MaxFailures
from orchestrator.needs.environment import Environment
from orchestrator.needs.resources import Resources
from orchestrator.sampling.dimension import Dimension
from trainables.config import Config
from trainables.data.datasets import DATASETS, DatasetConfig
from trainables.data.folds import Split
from trainables.data.named_datasets import Scenes
from trainables.schemas.producer import ProducerConfig
from trainables.schemas.registry import PRODUCER_SCHEMAS, TRAINABLE_SCHEMAS
from trainables.training_config import Change, CheckpointEvery, EarlyStopping, TrainableConfig

GROUPS = ("study file", "trainables", "producers", "data set types", "settings")
_STUDY_CLASSES: dict[str, type[Config]] = {
    "study": StudyFile,
    "data": DatasetConfig,
    "seeds": Seeds,
    "resources": Resources,
    "max_failures": MaxFailures,
    "environment": Environment,
    "stage": StageFile,
    "split": Split,
    "scenes": Scenes,
    "early_stopping": EarlyStopping,
    "checkpoint_every": CheckpointEvery,
    "changes": Change,
    "search": Search,
    "space": Dimension,
    "then": Then,
    "compare": CompareSpec,
    "notify": NotifySettings,
    "mail": MailSettings,
}
_SETTINGS: dict[str, type[Config]] = {
    "mlflow": MlflowSettings,
    "orchestrator": OwnSettings,
    "price": PriceSettings,
    "cluster": ClusterSettings,
    "token": TokenSource,
}
_NAMES = {m.__name__: name for name, m in {**_STUDY_CLASSES, **_SETTINGS}.items()}
_WIDTH, _INDENT = 80, " " * 22


@dataclass(frozen=True)
class Key:
    """One key of a mapping. type and range: words; default: None also where it is required."""

    name: str
    type: str
    range: str
    required: bool
    default: Any
    meaning: str

    @property
    def values(self) -> str:
        """Type and range in one phrase."""
        return f"{self.type}, {self.range}" if self.range else self.type

    @property
    def default_text(self) -> str:
        """Return the default as one writes it in YAML; empty where the meaning or its own keys say
        it."""
        if self.required:
            return "required"
        nothing = self.default is None or self.default == ""
        nested = isinstance(self.default, dict) and bool(self.default)
        return "" if nothing or nested else json.dumps(self.default).replace('"', "")


@dataclass(frozen=True)
class Topic:
    """Describes what has a name and keys: a trainable, a data set type, a part of a study file."""

    name: str
    group: str
    about: str
    keys: tuple[Key, ...]

    def plain(self) -> dict[str, Any]:
        """Return JSON-ready data."""
        return {
            "name": self.name,
            "group": self.group,
            "about": self.about,
            "keys": [dict(vars(key)) for key in self.keys],
        }


def topics() -> dict[str, Topic]:
    """Return all topics by name, group by group."""
    study, trainables, producers, types, settings = GROUPS
    listed = [Topic(name, study, _about(c), keys_of(c)) for name, c in _STUDY_CLASSES.items()]
    for group, registry in ((trainables, TRAINABLE_SCHEMAS), (producers, PRODUCER_SCHEMAS)):
        for name, kind in registry.items():
            listed.append(Topic(name, group, module_about(kind), keys_of(kind.Config)))
    for name, data in DATASETS.items():
        listed.append(Topic(name, types, data.about, _dataset_keys(name)))
    for name, form in _SETTINGS.items():
        listed.append(Topic(name, settings, _about(form), keys_of(form)))
    return {topic.name: topic for topic in listed}


def keys_of(model: type[Config]) -> tuple[Key, ...]:
    """Return the keys of a configuration class, in the order in which it declares them."""
    schema = model.model_json_schema()
    required = set(schema.get("required", ()))
    if issubclass(model, ProducerConfig):  # the loader fills in the producer's default
        required.discard("weights")
    return tuple(
        Key(
            name=name,
            type=_type(item),
            range=_range(item),
            required=name in required,
            default=item.get("default"),
            meaning=item.get("description") or _inherited_meaning(model, name),
        )
        for name, item in schema["properties"].items()
    )


def _dataset_keys(name: str) -> tuple[Key, ...]:
    """Return the keys of a data set of one type, without those for other types only."""
    keys = []
    for key in keys_of(DatasetConfig):
        owner, only, _ = key.meaning.partition(" only: ")
        if only and name not in owner.split(", "):
            continue
        default = DATASETS[name].size if key.name == "size" else key.default
        keys.append(Key(**{**vars(key), "default": default}))
    return tuple(keys)


def _inherited_meaning(model: type[Config], name: str) -> str:
    """Return what a base class says of a key that a subclass declares anew with another default."""
    for parent in model.__mro__[1:]:
        if issubclass(parent, Config) and name in parent.model_fields:
            if description := parent.model_fields[name].description:
                return description
    return ""


def _about(model: type[Config]) -> str:
    """Return the first paragraph of a class's docstring, in one line."""
    return " ".join((inspect.getdoc(model) or "").partition("\n\n")[0].split())


def module_about(kind: type) -> str:
    """Return the first line of the docstring of a class's module."""
    return (inspect.getdoc(sys.modules[kind.__module__]) or "").partition("\n")[0]


def _type(schema: Mapping[str, Any]) -> str:
    """Return the type of a value in words, from its JSON schema."""
    if "$ref" in schema:
        return f"mapping (see `{_NAMES[schema['$ref'].rpartition('/')[2]]}`)"
    if either := schema.get("anyOf", schema.get("oneOf")):
        parts = [part for part in either if part.get("type") != "null"]
        return " or ".join(map(_type, parts))
    choices = schema.get("enum") or ([schema["const"]] if "const" in schema else [])
    if choices:
        return ", ".join(str(value) for value in choices)
    if schema.get("type") == "array":
        return f"list of {_plural(_type(schema.get('items', {})), schema)}"
    if schema.get("type") == "object":
        inner = schema.get("additionalProperties")
        return f"mapping of name → {_type(inner if isinstance(inner, Mapping) else {})}"
    words = {"string": "text", "integer": "whole number", "number": "number"}
    return words.get(str(schema.get("type")), "true or false" if "type" in schema else "any value")


def _plural(word: str, schema: Mapping[str, Any]) -> str:
    """Return what a list holds, such as `texts`; with its length where that is fixed: `2
    numbers`."""
    count = schema.get("minItems") if schema.get("minItems") == schema.get("maxItems") else None
    plural = re.sub("^(text|number|whole number|list|mapping)(?![a-z])", r"\1s", word)
    return f"{count} {plural}" if count else plural


def _range(schema: Mapping[str, Any]) -> str:
    """Return the limits of a number, or of the numbers in a list; empty where there are none."""
    either = schema.get("anyOf", schema.get("oneOf", ()))
    for part in (*either, *filter(None, [schema.get("items")])):
        if isinstance(part, Mapping) and (limits := _range(part)):
            return limits
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    return " and ".join(f"{sign} {schema[key]:,g}" if isinstance(schema[key], float)
                        else f"{sign} {schema[key]}"
                        for key, sign in signs.items() if key in schema)  # fmt: skip


def names_text(all_topics: Iterable[Topic]) -> str:
    """Return the names of all topics, a line for each group, at most 80 columns wide."""
    names: dict[str, list[str]] = {}
    for topic in all_topics:
        names.setdefault(topic.group, []).append(topic.name)
    return "\n".join(_entry(group, ", ".join(listed)) for group, listed in names.items())


def topic_text(topic: Topic) -> str:
    """Return a topic and its keys as text, at most 80 columns wide."""
    head = textwrap.fill(f"{topic.name}: {topic.about}", _WIDTH)
    entries = [
        "\n".join(
            [
                _entry(key.name, _with_default(key)),
                *textwrap.wrap(
                    key.meaning, _WIDTH, initial_indent=_INDENT, subsequent_indent=_INDENT
                ),
            ]
        )
        for key in topic.keys
    ]
    return "\n".join([head, "", *entries])


def _with_default(key: Key) -> str:
    default = key.default_text
    if not default or key.required:
        return f"{key.values}; required" if key.required else key.values
    return f"{key.values}; default {default}"


def _entry(name: str, text: str) -> str:
    """Return a name, and a text that begins in column 23."""
    return textwrap.fill(
        text,
        _WIDTH,
        initial_indent=f"{name:21} ",
        subsequent_indent=_INDENT,
        break_on_hyphens=False,
    )


def markdown() -> str:
    """Return the study reference: the content of orchestrator/config/README.md."""
    every = topics()
    parts = [_INTRODUCTION.strip()]
    for name, model in _STUDY_CLASSES.items():
        parts += [f"## `{name}`", every[name].about, _table(every[name].keys)]
        if model is DatasetConfig:
            parts += ["Types of data sets:", _types_table()]
    parts += [
        "## Keys of every trainable",
        _about(TrainableConfig),
        _table(keys_of(TrainableConfig)),
    ]
    for name in TRAINABLE_SCHEMAS:
        parts += _own_part(every[name], keys_of(TrainableConfig))
    parts += ["## Keys of every producer", _about(ProducerConfig), _table(keys_of(ProducerConfig))]
    for name in PRODUCER_SCHEMAS:
        parts += _own_part(every[name], keys_of(ProducerConfig))
    for name, title in (("mlflow", "`mlflow.yaml`"), ("orchestrator", "`orchestrator.yaml`"),
                        ("price", "`price`"), ("cluster", "`clusters.yaml`"),
                        ("token", "`token`")):  # fmt: skip
        parts += [f"## {title}", every[name].about, _table(every[name].keys)]
    return "\n\n".join(parts) + "\n"


def _own_part(topic: Topic, shared: tuple[Key, ...]) -> list[str]:
    """Return a section with the keys of a topic that the shared ones do not say already."""
    own = tuple(key for key in topic.keys if key not in shared)
    return [f"### `{topic.name}`", topic.about, _table(own)]


def _table(keys: Iterable[Key]) -> str:
    rows = [(f"`{k.name}`", k.values, _code(k.default_text), k.meaning) for k in keys]
    return _rows(("key", "values", "default", "meaning"), rows)


def _types_table() -> str:
    rows = [(f"`{name}`", f"{kind.size} px", kind.about) for name, kind in DATASETS.items()]
    return _rows(("type", "default size", "what lies on disk"), rows)


def _code(default: str) -> str:
    return default if default in ("", "required") else f"`{default}`"


def _rows(header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [header, ("---",) * len(header), *rows]
    return "\n".join(
        "| " + " | ".join(c.replace("|", "\\|") for c in line) + " |" for line in lines
    )


_INTRODUCTION = """
# Study reference

This page is generated from the code: `python -m orchestrator describe --markdown`. The same, one
part at a time, in the terminal: `python -m orchestrator describe NAME`.

A study is one YAML file with one question. It names data sets, and stages that train a model on
them. Every stage is trained once for each seed, and `compare` puts the results into one table.

```yaml
study: flowers
question: Does pretraining on rotations help to classify flowers?
data: {flowers: {type: image_folder, path: photographs, size: 64}}
stages:
  rotation: {trainable: rotation, config: {dataset: flowers, epochs: 30}}
  tuned:    {trainable: classify, after: rotation, config: {dataset: flowers}}
  scratch:  {trainable: classify, config: {dataset: flowers}}
seeds: [0, 1, 2]
compare: {metric: test/accuracy, differences: [[tuned, scratch]]}
```

`after` starts a stage from the trained encoder of another one. `grid` trains every combination of
the values that it lists. `--set KEY=VALUE` changes a value for one call: `--set seeds=[0]`.

Everything is checked before anything starts, and all errors are shown at once: the key, what is
wrong, and the nearest name.

```text
error: flowers.yaml: 2 errors
  stages.rotation.config.epocs: unknown key (did you mean 'epochs'?)
  stages.tuned.after: no stage 'rotations' (did you mean 'rotation'?)
```
"""
