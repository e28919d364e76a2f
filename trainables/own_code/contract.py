"""Says in words what a class lacks to be a trainable. It builds nothing.

`trainables/checking` goes on from here: it builds one, and trains it on tiny data.
"""

import importlib
import inspect
from typing import Any

from trainables.metrics import METRICS, Metric

_NEEDS = ("labels", "masks", None)
_PREDICTS = ("classes", "masks", None)
_SPLITS = ("train", "val", "test")


def faults(kind: Any, name: str) -> list[str]:
    """Return what is wrong with a class as a trainable, a line each; none: its form is right.

    kind: what `name`, such as `my_module:MyTrainable`, stands for. Loads torch.
    """
    trainable = importlib.import_module("trainables.trainable").Trainable  # seconds: torch
    if not (inspect.isclass(kind) and issubclass(kind, trainable)):
        return [
            f"{name} is {_what(kind)}, and must be a subclass of trainables.trainable.Trainable: "
            "write `class MyTrainable(Trainable):`"
        ]
    lines = []
    if missing := sorted(getattr(kind, "__abstractmethods__", ())):
        lines.append(f"{name} lacks {_listed(missing)}: define {_it(missing)}, see Trainable")
    return [*lines, *_attributes(kind, name)]


def _attributes(kind: Any, name: str) -> list[str]:
    """Check Config, FIGURES, SELECT, PREDICTS, NEEDS and METRICS."""
    needed = ("Config", "FIGURES", "SELECT", "PREDICTS", "NEEDS")
    if missing := [item for item in needed if not hasattr(kind, item)]:
        return [f"{name} lacks {_listed(missing)}: set {_it(missing)} in the class"]
    lines = []
    config = importlib.import_module("trainables.training_config").TrainableConfig
    if not (inspect.isclass(kind.Config) and issubclass(kind.Config, config)):
        lines.append(f"{name}.Config is {_what(kind.Config)}: make it a TrainableConfig")
    for attribute, allowed in (("PREDICTS", _PREDICTS), ("NEEDS", _NEEDS)):
        if getattr(kind, attribute) not in allowed:
            words = ", ".join(map(repr, allowed))
            lines.append(f"{name}.{attribute} is {getattr(kind, attribute)!r}: set one of {words}")
    figures = kind.FIGURES
    if not isinstance(figures, tuple) or not all(isinstance(item, str) for item in figures):
        return [*lines, f"{name}.FIGURES is {figures!r}: write a tuple of names, ('loss',)"]
    own = getattr(kind, "METRICS", ())
    if not isinstance(own, tuple) or not all(isinstance(item, Metric) for item in own):
        return [*lines, f"{name}.METRICS is {own!r}: write a tuple of trainables.metrics.Metric"]
    lines += [f"{name}.METRICS: {line}" for line in map(_conflict, own) if line]
    known = METRICS.keys() | {metric.name for metric in own}
    lines += [
        f"{name}.FIGURES names {item!r}, which is no metric: add "
        f'`METRICS = (Metric("{item}", "max", "%", "what it is"),)` to the class'
        for item in figures
        if item not in known
    ]
    split, _, figure = str(kind.SELECT).partition("/")
    if split != "val" or figure not in figures:
        shown = " or ".join(f"val/{item}" for item in figures)
        lines.append(f"{name}.SELECT is {kind.SELECT!r}: the epoch is chosen by {shown}")
    return lines


def _conflict(metric: Metric) -> str:
    known = METRICS.get(metric.name)
    if known is None or known == metric:
        return ""
    return f"{metric.name!r} is a metric already ({known.label}, {known.mode}): choose another name"


def _what(value: Any) -> str:
    if inspect.isclass(value):
        return f"the class {value.__name__}"
    return f"of type {type(value).__name__}"


def _listed(names: list[str]) -> str:
    return f"{', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else names[0]


def _it(names: list[str]) -> str:
    return "them" if len(names) > 1 else "it"
