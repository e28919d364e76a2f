"""A Run: one training with its final configuration, and the key that identifies it."""

import hashlib
import json
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from orchestrator.study_data.seed_cuts import data_of_seed
from trainables.config import ONLY_LOOKS
from trainables.metrics import KNN, LINEAR

if TYPE_CHECKING:  # reading a plan must not cost the import of torch, which a study needs
    from orchestrator.config.study_schema import Stage


Values = tuple[tuple[str, Any], ...]
Texts = tuple[tuple[str, str], ...]  # values as a label shows them
_MOST_LETTERS = 200  # of one value in a label; MLflow takes no tag of more than 8,000
VARIED = ("init", "order")  # what a seed draws where a study does not say it


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
    vary: tuple[str, ...] = VARIED  # what its seed draws; of the rest it has the draws of seed 0

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
    texts: Texts,
    config: dict[str, Any],
    parent: Run | None,
    seed: int,
    inputs: Inputs,
) -> Run:
    """Build a Run and its key. texts: the values of the stage's grid, for the label; config:
    whole."""
    config = config | {"dataset": data_of_seed(config["dataset"], seed)}
    init, order = (seed if what in stage.vary else 0 for what in ("init", "order"))
    weights = inputs.weights.get(config["weights"])
    select, predicts, artifacts = inputs.facts[stage.trainable](config)
    not_deciding = () if artifacts else _only_looks(config, select)  # else they decide
    hashed = {k: v for k, v in config.items() if k != "dataset" and k not in not_deciding}
    if weights is not None:  # the file's content decides, not where it lies
        hashed["weights"] = "file"
    parts = {
        "trainable": stage.trainable,
        "config": hashed,
        "dataset": inputs.fingerprints[config["dataset"]],
        "weights": weights,
        "seed": init if init == order else {"init": init, "order": order},
        "parent": parent.key if parent else None,
        "code": inputs.code(stage.trainable, config),
    }
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"))
    return Run(
        stage=stage.name,
        label=_label(stage.name, texts, parent),
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
        vary=stage.vary,
    )


def _only_looks(config: Mapping[str, Any], select: str) -> list[str]:
    """Return the keys that do not decide what is trained or chosen. How often a probe is made does
    where its figures choose the epoch or stop the training."""
    stop = config["early_stopping"]
    decisive = {select, stop["metric"] if stop else None}
    return [n for n in ONLY_LOOKS if n != "probe_every" or not decisive & {KNN, LINEAR}]


def _label(stage: str, texts: Texts, parent: Run | None) -> str:
    """Return the stage with its grid values and its parents': `late[lr=0.1,rotation.epochs=5]`."""
    parts = [f"{key}={text}" for key, text in texts]
    if parent and "[" in parent.label:
        name, _, inherited = parent.label[:-1].partition("[")
        parts += [v if "." in v.split("=")[0] else f"{name}.{v}" for v in inherited.split(",")]
    return f"{stage}[{','.join(parts)}]" if parts else stage


def label_texts(points: Sequence[Values]) -> list[Texts]:
    """Return the values of every point of a grid as labels show them.

    Signs such as `/` become `-`. Of one key no two values look alike: where they would, as `a b.pt`
    and `a-b.pt` do, their signs are written as in addresses (`a%20b.pt`).
    """
    values: dict[str, dict[str, Any]] = {}  # key → exact text → value, each value once
    for point in points:
        for key, value in point:
            values.setdefault(key, {})[repr(value)] = value
    texts = {key: _told_apart(known) for key, known in values.items()}
    return [tuple((key, texts[key][repr(value)]) for key, value in point) for point in points]


def _told_apart(values: Mapping[str, Any]) -> dict[str, str]:
    """Return exact text → the first of four ways to write a value that no other value looks like.
    The last way differs for any two values."""
    texts: dict[str, str] = {}
    for write in (_short, _escaped, _quoted, _with_digest):
        left = {exact: write(value) for exact, value in values.items() if exact not in texts}
        looks = Counter(map(_look, (*left.values(), *texts.values())))
        texts |= {exact: text for exact, text in left.items() if looks[_look(text)] == 1}
    return texts


def _look(text: str) -> str:
    """Return a text that is the same for texts which look the same on most screens."""
    return unicodedata.normalize("NFKC", text)


def _plain(value: Any) -> str:
    return repr(value) if isinstance(value, float) else str(value)


def _short(value: Any) -> str:
    text = "".join(c if c.isalnum() or c in "._+-" else "-" for c in _plain(value))
    return text if len(text) <= _MOST_LETTERS else _with_digest(text)


def _escaped(value: Any) -> str:
    """Write all but letters of ASCII, digits and `._+-` as `%` and its codes in UTF-8."""
    return quote(_plain(value), safe="+", errors="surrogatepass")


def _quoted(value: Any) -> str:
    return f"'{_escaped(value)}'" if isinstance(value, str) else _escaped(value)


def _with_digest(value: Any) -> str:
    digest = hashlib.sha256(repr(value).encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return f"{_escaped(value)[:_MOST_LETTERS]}-{digest}"
