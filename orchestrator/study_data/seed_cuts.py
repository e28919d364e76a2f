"""Names what each seed of a study gets of a data set: a fold, or a split of its own.

Reading a plan or a comparison must not cost the import of torch, which a study needs.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from orchestrator.config.study_schema import Stage, Study, Variant
    from trainables.data.contract import Source
    from trainables.data.datasets import DatasetConfig

_CUT = re.compile(r"(.*)\[(?:folds=([0-9]+),fold|split)=([0-9]+)\]", re.DOTALL)
SPLIT = "split"  # in `vary` of seeds: each seed cuts the images anew


@dataclass(frozen=True)
class SeedCut:
    """Names one of the ways in which a study's seeds cut a data set."""

    data: str  # what the study calls the data set
    folds: int | None  # into how many folds it is cut; None: each seed has a split of its own
    number: int  # of the fold that is the test, from 0; of a split, the seed that it is of

    @property
    def name(self) -> str:
        """Return what stands in a Run's configuration: `x[folds=5,fold=2]` or `x[split=2]`."""
        kind = "split" if self.folds is None else f"folds={self.folds},fold"
        return f"{self.data}[{kind}={self.number}]"

    @property
    def kind(self) -> str:
        return "split" if self.folds is None else "fold"

    def of_seed(self, seed: int) -> "SeedCut":
        """Return the fold or the split of a seed."""
        return replace(self, number=seed if self.folds is None else seed % self.folds)

    def settings(self, config: "DatasetConfig") -> dict[str, int]:
        """Return what makes a data set this fold or this split. config: as it is written."""
        if self.folds is None:
            return {"split_seed": config.split_seed + self.number}
        return {"fold": self.number}


def cut_of(name: str) -> SeedCut | None:
    """Return what a data set's name says of its cut; None where no seed decides that."""
    match = _CUT.fullmatch(name)
    return SeedCut(match[1], int(match[2]) if match[2] else None, int(match[3])) if match else None


def written_name(name: str) -> str:
    """Return what the study calls a data set, without its cut."""
    cut = cut_of(name)
    return cut.data if cut else name


def data_of_seed(name: str, seed: int) -> str:
    """Return the name of the data that the Run of a seed gets. name: with any of its cuts."""
    cut = cut_of(name)
    return cut.of_seed(seed).name if cut else name


def by_written_name(lines: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """Return data set, as the study calls it → lines on it. lines: of each data set, with cuts. A
    line that holds for some folds or splits only begins with the first of them."""
    cuts = Counter(map(written_name, lines))
    known = Counter((written_name(n), line) for n, listed in lines.items() for line in set(listed))
    joined: dict[str, dict[str, None]] = {}
    for name, listed in lines.items():
        cut, written = cut_of(name), written_name(name)
        for line in listed:
            whole = cut is None or known[written, line] == cuts[written]
            text = line if whole or cut is None else f"{cut.kind} {cut.number}: {line}"
            joined.setdefault(written, {})[text] = None
    return {name: list(texts) for name, texts in joined.items()}


def with_cuts(study: "Study") -> "Study":
    """Return a study in which each fold or split that a seed gets is a data set of its own.

    A stage names that of its first seed; `make_run` gives each Run that of its own seed.
    """
    cuts = _cuts_by_seed(study)
    data: dict[str, DatasetConfig] = {}
    for name, config in study.data.items():
        if name not in cuts:
            data[name] = config
            continue
        of_seeds = {cuts[name].of_seed(seed) for seed in _seeds_of(study, name)}
        for cut in sorted(of_seeds, key=lambda cut: cut.number):
            data[cut.name] = config.model_copy(update=cut.settings(config))
    stages = tuple(
        replace(stage, variants=tuple(_in_cut(v, stage, cuts) for v in stage.variants))
        for stage in study.stages
    )
    return replace(study, data=data, stages=stages) if cuts else study


def _in_cut(variant: "Variant", stage: "Stage", cuts: Mapping[str, SeedCut]) -> "Variant":
    """Return a variant on the cut of its stage's first seed."""
    name = variant.config.dataset
    if name not in cuts:
        return variant
    first = cuts[name].of_seed(stage.all_seeds[0]).name
    return replace(variant, config=variant.config.model_copy(update={"dataset": first}))


def _seeds_of(study: "Study", name: str) -> set[int]:
    """Return the seeds of the stages on a data set, or of all where no stage is on it."""
    on_it = [stage for stage in study.stages if name in _names(stage)]
    return {seed for stage in on_it or study.stages for seed in stage.all_seeds}


def _names(stage: "Stage") -> set[str]:
    return {variant.config.dataset for variant in stage.variants}


def _cuts_by_seed(study: "Study") -> dict[str, SeedCut]:
    """Return data set → the cut of seed 0, where the seed says how it is cut."""
    cuts = {
        name: SeedCut(name, config.folds, 0)
        for name, config in study.data.items()
        if config.folds is not None and config.fold is None
    }
    varied = [stage for stage in study.stages if stage.trains and SPLIT in stage.vary]
    names = {name for stage in varied for name in _names(stage)}
    return cuts | {name: SeedCut(name, None, 0) for name in study.data if name in names}


def words_on_cuts(study: "Study") -> tuple[list[str], list[str]]:
    """Return what a reader of the plan should know of folds by seed, and warnings on folds and
    splits, a line each. study: before `with_cuts`."""
    said, warnings = [], []
    for name, cut in _cuts_by_seed(study).items():
        stages = [stage for stage in study.stages if name in _names(stage)]
        if cut.folds is not None:
            said.append(
                f"{name}: the Run of seed s tests fold s mod {cut.folds}, and learns from the "
                "others"
            )
            warnings += _words_on_lacking(name, cut.folds, stages)
        warnings += [
            f"warning: data.{name}: the search of {stage.name} chooses by one {cut.kind}'s "
            f"validation images, which are in the test of other {cut.kind}s: what it chooses may "
            "look too good there"
            for stage in stages
            if stage.search is not None
        ]
    return said, warnings


def _words_on_lacking(name: str, folds: int, stages: Iterable["Stage"]) -> list[str]:
    """Warn of stages whose seeds do not test every fold."""
    lacking: dict[int, list[str]] = {}  # folds that are tested → stages
    for stage in stages:
        covered = len({seed % folds for seed in stage.seeds})
        if covered < folds and stage.trains:
            lacking.setdefault(covered, []).append(stage.name)
    return [
        f"warning: data.{name}: the seeds of {', '.join(stages)} cover {covered} of {folds} folds: "
        f"a whole cross-validation needs {folds} seeds, such as 0 to {folds - 1}"
        for covered, stages in lacking.items()
    ]


class Parted(Protocol):
    """A data set whose images are found, such as `data_sets.DataSet`."""

    @property
    def source(self) -> "Source": ...


def ratios_of_test(data: Mapping[str, Parted]) -> dict[str, float]:
    """Return data set, as the study calls it → test images per image that is learned from, of data
    sets of which each seed has a split of its own; 0 where all seeds test the same images."""
    ratios: dict[str, float] = {}
    for name, item in data.items():
        cut = cut_of(name)
        if cut is None or cut.folds is not None:
            continue
        parts = item.source.parts
        learned = len(parts["train"]) + len(parts["val"])
        ratio = 0.0 if "test" in item.source.given else len(parts["test"]) / learned
        ratios[cut.data] = max(ratio, ratios.get(cut.data, 0.0))
    return ratios


def words_on_splits(data: Mapping[str, Parted]) -> list[str]:
    """Return which parts each seed cuts anew, a line for each data set."""
    changes = {
        written_name(name): "test" not in item.source.given
        for name, item in data.items()
        if (cut := cut_of(name)) and cut.folds is None
    }
    return [
        f"{name}: seed s cuts its images with split_seed + s, "
        + (
            "the test too"
            if tests
            else "into train and val; the test is the data set's own, the same for all seeds"
        )
        for name, tests in changes.items()
    ]
