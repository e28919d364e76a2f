"""The data sets of a study, and which of them its stages learn from."""

from dataclasses import dataclass

from orchestrator.config.study_schema import Stage, Study
from orchestrator.study_data.seed_cuts import data_of_seed, written_name
from trainables.contents.copies import Settled
from trainables.data.contract import Source
from trainables.data.datasets import DatasetConfig
from trainables.layouts.folders import passed_over_text
from trainables.loading.mask_counts import MaskCounts
from trainables.training_config import TrainableConfig


@dataclass(frozen=True)
class DataSet:
    """Holds a data set: images and splits, the fingerprint of its content, what its masks have.
    cautions: why figures may be too good; whole: nothing is held out, for producers alone."""

    name: str
    source: Source
    fingerprint: str
    masks: MaskCounts | None = None
    cautions: tuple[str, ...] = ()
    whole: bool = False

    @property
    def remarks(self) -> list[str]:
        """Return what a reader should know, a line each: cautions, notes, what was passed over."""
        passed = passed_over_text(self.source.passed_over)
        said = [*(f"warning: {line}" for line in self.cautions), *self.source.notes]
        return [*said, *([f"passed over: {passed}"] if passed else [])]


@dataclass(frozen=True)
class ListedData:
    """A data set whose images are found. hashes: of each image."""

    config: DatasetConfig
    hashes: list[str]
    settled: Settled
    trained_on: bool


def data_key(name: str) -> str:
    """Return the key of the study file under which a data set stands."""
    return f"data.{written_name(name)}"


def trained_on(study: Study) -> set[str]:
    """Return the names of the data sets that a trainable learns from."""
    return {
        data_of_seed(name, seed)
        for stage in study.stages
        for name in training_data(stage)
        for seed in stage.all_seeds
    }


def training_data(stage: Stage) -> list[str]:
    """Return the names of the data sets that a stage's configurations are trained on."""
    configs = [variant.config for variant in stage.variants]
    return sorted({c.dataset for c in configs if isinstance(c, TrainableConfig)})
