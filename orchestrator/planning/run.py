"""One training with its final configuration, and the key that identifies it."""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from trainables.config import ONLY_LOOKS

if TYPE_CHECKING:  # reading a plan must not cost the import of torch, which a study needs
    from orchestrator.config.study_schema import Stage


Values = tuple[tuple[str, Any], ...]


@dataclass(frozen=True)
class Run:
    """One training with its final configuration. `key` is the hash of all that decides it."""

    stage: str
    label: str  # the stage plus the values of its own and its parents' grids
    seed: int
    key: str
    parent: str | None  # key of the Run whose encoder this one starts from
    parent_label: str | None
    trainable: str
    select: str  # the metric that chooses its checkpoint
    predicts: bool  # whether its model says something of an image
    artifacts: str  # of a producer, the folder of what it makes; empty for what learns
    config: Mapping[str, Any]
    dataset: str  # fingerprint
    weights: str | None  # sha256 of the state-dict file it starts from
    code: str

    @property
    def name(self) -> str:
        return f"{self.label} seed {self.seed}"


@dataclass(frozen=True)
class Inputs:
    """What a plan needs to know beside the study; all of it is read where the data is."""

    fingerprints: Mapping[str, str]  # name under `data:` → fingerprint
    weights: Mapping[str, str]  # path of a state-dict file → sha256
    code: Callable[
        [str, Mapping[str, Any]], str
    ]  # name of a trainable, its configuration → version
    # name of a trainable → configuration → Run.select, Run.predicts, Run.artifacts
    facts: Mapping[str, Callable[[Mapping[str, Any]], tuple[str, bool, str]]]


def make_run(
    stage: "Stage",
    point: tuple[Values, dict[str, Any]],
    parent: Run | None,
    seed: int,
    inputs: Inputs,
) -> Run:
    """One training. point: the stage's grid values, and its configuration with them."""
    values, config = point
    weights = inputs.weights.get(config["weights"])
    select, predicts, artifacts = inputs.facts[stage.trainable](config)
    looks = () if artifacts else ONLY_LOOKS  # what a producer looks at is what it makes
    hashed = {k: v for k, v in config.items() if k != "dataset" and k not in looks}
    if weights is not None:  # the file's content decides, not where it lies
        hashed["weights"] = "file"
    parts = {
        "trainable": stage.trainable,
        "config": hashed,
        "dataset": inputs.fingerprints[config["dataset"]],
        "weights": weights,
        "seed": seed,
        "parent": parent.key if parent else None,
        "code": inputs.code(stage.trainable, config),
    }
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"))
    return Run(
        stage=stage.name,
        label=_label(stage.name, values, parent),
        seed=seed,
        key=hashlib.sha256(text.encode()).hexdigest()[:20],
        parent=parent.key if parent else None,
        parent_label=parent.label if parent else None,
        trainable=stage.trainable,
        select=select,
        predicts=predicts,
        artifacts=artifacts,
        config=config,
        dataset=str(parts["dataset"]),
        weights=weights,
        code=str(parts["code"]),
    )


def _label(stage: str, point: Values, parent: Run | None) -> str:
    values = [f"{key}={_short(value)}" for key, value in point]
    if parent and "[" in parent.label:
        name, _, inherited = parent.label[:-1].partition("[")
        values += [v if "." in v.split("=")[0] else f"{name}.{v}" for v in inherited.split(",")]
    return f"{stage}[{','.join(values)}]" if values else stage


def _short(value: Any) -> str:
    text = repr(value) if isinstance(value, float) else str(value)
    return "".join(c if c.isalnum() or c in "._+-" else "-" for c in text)
