"""A Run: one training with its final configuration, and the key that identifies it."""

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
    """One training, or one batch inference, with its final configuration.

    `key` is a hash of everything that decides its figures.
    """

    stage: str
    label: str  # the stage plus the values of its own and its parents' grids
    seed: int
    key: str
    parent: str | None  # key of the Run whose encoder this one starts from
    parent_label: str | None
    trainable: str
    select: str  # the metric that chooses its checkpoint
    predicts: bool  # whether its model predicts something for an image
    artifacts: str  # folder of what a producer makes; empty for a trainable
    config: Mapping[str, Any]
    dataset: str  # fingerprint of its data set
    weights: str | None  # sha256 of the state-dict file it starts from
    code: str

    @property
    def name(self) -> str:
        """Return label and seed, as tables show them."""
        return f"{self.label} seed {self.seed}"


@dataclass(frozen=True)
class Inputs:
    """Holds what decides a plan beside the study. It is read where the data is."""

    fingerprints: Mapping[str, str]  # name under `data:` → fingerprint
    weights: Mapping[str, str]  # path of a state-dict file → sha256
    code: Callable[[str, Mapping[str, Any]], str]  # trainable, configuration → code version
    # name of a trainable → configuration → Run.select, Run.predicts, Run.artifacts
    facts: Mapping[str, Callable[[Mapping[str, Any]], tuple[str, bool, str]]]


def make_run(
    stage: "Stage",
    values: Values,
    config: dict[str, Any],
    parent: Run | None,
    seed: int,
    inputs: Inputs,
) -> Run:
    """Build a Run and its key. values: those of the stage's grid, for the label; config: whole."""
    weights = inputs.weights.get(config["weights"])
    select, predicts, artifacts = inputs.facts[stage.trainable](config)
    not_deciding = () if artifacts else ONLY_LOOKS  # they decide what a producer makes
    hashed = {k: v for k, v in config.items() if k != "dataset" and k not in not_deciding}
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


def _label(stage: str, values: Values, parent: Run | None) -> str:
    """Return the stage with its grid values and its parents': `late[lr=0.1,rotation.epochs=5]`."""
    parts = [f"{key}={_short(value)}" for key, value in values]
    if parent and "[" in parent.label:
        name, _, inherited = parent.label[:-1].partition("[")
        parts += [v if "." in v.split("=")[0] else f"{name}.{v}" for v in inherited.split(",")]
    return f"{stage}[{','.join(parts)}]" if parts else stage


def _short(value: Any) -> str:
    text = repr(value) if isinstance(value, float) else str(value)
    return "".join(c if c.isalnum() or c in "._+-" else "-" for c in text)
