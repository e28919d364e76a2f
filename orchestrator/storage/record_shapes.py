"""Say what the JSON files of a Run and of a search must hold. A file with other types is damaged.

They may hold more. Files of earlier versions have these keys too.
"""

from collections.abc import Mapping
from typing import Any, Literal, NotRequired

from typing_extensions import TypedDict

_Epochs = list[dict[str, float | None]]


class AttemptRecord(TypedDict):
    """Describes what `attempt` holds."""

    attempt: int


class AnyRecord(TypedDict):
    """Holds what is read of a file that may be damaged otherwise."""

    attempt: NotRequired[int]


class ProgressRecord(AttemptRecord):
    """Holds what `progress.json` of any version has beside the fields of `Progress`."""

    time: float
    history: _Epochs
    facts: dict[str, Any]
    done: NotRequired[float]
    total: NotRequired[float | None]


class DoneRecord(TypedDict):
    """Describes what `done.json` holds."""

    attempt: NotRequired[int]
    best_epoch: int
    history: _Epochs
    test: dict[str, float | None]
    facts: dict[str, Any]


class EndedRecord(AttemptRecord):
    """Describes what `ended.json` holds."""

    state: Literal["FAILED", "KILLED"]
    reason: str
    job: NotRequired[str]
    submission: NotRequired[str]


class OriginRecord(TypedDict):
    """Describes what `origin.json` holds."""

    run_id: str


class _File(TypedDict):
    """Holds a file as `describe` describes it."""

    bytes: int
    sha256: str


class ImageRecord(TypedDict):
    """Describes what the record of a producer's image holds."""

    files: dict[str, _File]


class _TrialRecord(TypedDict):
    """Describes a trial in `trials.json`, under the names of any version."""

    index: int
    values: dict[str, Any]
    key: str
    label: str
    state: NotRequired[Literal["RUNNING", "FINISHED", "STOPPED", "FAILED"]]
    epochs: NotRequired[int]
    figure: NotRequired[float | None]
    best: NotRequired[int | None]
    reason: NotRequired[str]
    ended: NotRequired[float | None]
    upstream: NotRequired[list[str]]
    evolved_values: NotRequired[dict[str, Any] | None]
    lineage: NotRequired[list[dict[str, Any]]]


class TrialsRecord(TypedDict):
    """Describes what `trials.json` holds."""

    seconds: NotRequired[float]
    most: NotRequired[int | None]
    evolved: NotRequired[int]
    trials: NotRequired[list[_TrialRecord]]


_NUMERICS = ("precision", "device", "torch", "workers")  # facts that change figures


def with_changes(
    earlier: Mapping[str, Any], facts: Mapping[str, Any], attempt: int
) -> dict[str, Any]:
    """Return the facts of a Run with what is not as in its earlier attempts: `resumed_with`, such
    as `from epoch 3 precision float32 → bfloat16`, and the same in `warning`.

    earlier: the progress that was read before the attempt reported anything; may be empty.
    """
    before, said = earlier.get("facts", {}), []
    if before.get("resumed_with"):
        said.append(str(before["resumed_with"]))
    epochs = len(earlier.get("history", ()))
    if epochs and earlier.get("attempt") != attempt:
        both = [(name, before.get(name), facts.get(name)) for name in _NUMERICS]
        changes = [f"{name} {old} → {new}" for name, old, new in both if old and new and old != new]
        said += [f"from epoch {epochs + 1} {', '.join(changes)}"] if changes else []
    if not said:
        return dict(facts)
    warning = [facts.get("warning"), f"resumed with other numerics: {'; '.join(said)}"]
    return {**facts, "resumed_with": "; ".join(said), "warning": "; ".join(filter(None, warning))}


def current_progress(record: Mapping[str, Any]) -> dict[str, Any]:
    """Give a record of progress the fields of `Progress`. Earlier versions wrote `epoch`, `part`
    (added up: `done`) and `epochs` (`total`), of images too."""
    if "epoch" not in record:
        return dict(record)
    rest = {name: v for name, v in record.items() if name not in ("epoch", "part", "epochs")}
    done = record["epoch"] + record.get("part", 0.0)
    return {**rest, "done": done, "total": record.get("epochs"), "unit": "epochs"}
