"""What the JSON files of a Run and of a search must hold, of which types: any other is damaged.

They may hold more. Files of earlier versions have these keys too.
"""

from typing import Any, Literal, NotRequired

from typing_extensions import TypedDict

_Epochs = list[dict[str, float | None]]


class AttemptRecord(TypedDict):
    """The content of `attempt`."""

    attempt: int


class AnyRecord(TypedDict):
    """What is read of a file that may be damaged otherwise."""

    attempt: NotRequired[int]


class ProgressRecord(AttemptRecord):
    """What `progress.json` holds beside the fields of `Progress`, of any version."""

    time: float
    history: _Epochs
    facts: dict[str, Any]
    done: NotRequired[float]
    total: NotRequired[float | None]


class DoneRecord(TypedDict):
    """The content of `done.json`."""

    attempt: NotRequired[int]
    best_epoch: int
    history: _Epochs
    test: dict[str, float | None]
    facts: dict[str, Any]


class EndedRecord(AttemptRecord):
    """The content of `ended.json`."""

    state: Literal["FAILED", "KILLED"]
    reason: str
    job: NotRequired[str]
    submission: NotRequired[str]


class OriginRecord(TypedDict):
    """The content of `origin.json`."""

    run_id: str


class _File(TypedDict):
    """A file as `describe` describes it."""

    bytes: int
    sha256: str


class ImageRecord(TypedDict):
    """The record of a producer's image."""

    files: dict[str, _File]


class _TrialRecord(TypedDict):
    """A trial in `trials.json`, under the names of any version."""

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
    """The content of `trials.json`."""

    seconds: NotRequired[float]
    most: NotRequired[int | None]
    evolved: NotRequired[int]
    trials: NotRequired[list[_TrialRecord]]
