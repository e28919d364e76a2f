"""The one training loop, for every trainable and every rank. It knows neither Ray nor MLflow.

    result = fit(Classify, Classify.Config(dataset="photos", epochs=5), table, seed=0)

`fit` trains in one process. With several ranks, each builds a `Training` and calls `train` and
`finish`. The loop resumes from the newest checkpoint that its `Checkpoints` has.
"""

import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from trainables.config import as_plain
from trainables.engine.checkpoints import (
    Checkpoints,
    InMemory,
    Progress,
    Report,
    Result,
    TrainingState,
    Unrecoverable,
)
from trainables.engine.early_stopping import AllCollapsed, best_epoch, chosen_epoch, has_ended
from trainables.engine.evaluation import named_figures, sums_over, with_test_facts
from trainables.engine.frozen_features import with_features
from trainables.engine.step import (
    LossScale,
    backward,
    build_optimizer,
    check_finite,
    make_step,
    set_hyperparameters,
    set_rate,
    with_counted,
)
from trainables.loading.batches import BatchStream, training_steps, with_partners
from trainables.loading.image_table import ImageTable
from trainables.metrics import Epochs, metric_of
from trainables.models.matching import WeightsError
from trainables.models.weights import WeightTransfer, initialize
from trainables.monitoring.feature_warnings import collapse_warning, warnings_of
from trainables.monitoring.recorder import Recorder
from trainables.numerics.distributed import ALONE, World, data_parallel
from trainables.numerics.pass_counts import PassCounts
from trainables.numerics.precision import choose_precision
from trainables.numerics.reached_taps import guarded
from trainables.numerics.seeds import derived_seed
from trainables.numerics.sync_batchnorm import synchronize
from trainables.trainable import Batch, Trainable
from trainables.training_config import TrainableConfig, check_batch

log = logging.getLogger(__name__)
Start = Callable[[nn.Module], WeightTransfer]  # loads the first weights into an encoder
_PROGRESS_SECONDS = 1.0
_SCALE = "loss_scale"  # key in the optimizer's state of a checkpoint, where losses are scaled
_FINITE_CHECK = 50  # steps between two checks of a GPU's losses; on a CPU every step is checked


@dataclass(frozen=True)
class Options:
    """Says how a training is run, beside its configuration.

    seed: decides order, augmentation and dropout; init_seed: decides initialization, None: `seed`;
    world: this rank; start: loads the first weights of the encoder, None: as `config.weights` says;
    gpus: GPUs per rank; features: folder of kept features of frozen encoders, None: in memory.
    """

    seed: int = 0
    world: World = ALONE
    start: Start | None = None
    gpus: float = 1.0
    features: Path | None = None
    init_seed: int | None = None


def fit(
    kind: type[Trainable],
    config: TrainableConfig,
    table: ImageTable,
    seed: int = 0,
    checkpoints: Checkpoints | None = None,
) -> Result:
    """Train and test in this process; resume from the newest checkpoint if there is one.

    config: a `kind.Config`; table: the decoded images; checkpoints: where the state is kept, None:
    in memory. Trains on the GPU if there is one. Raises Unrecoverable where another try would fail.
    """
    world = World(0, 1, torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    options = Options(seed, world)
    training = Training(kind, config, table, checkpoints or InMemory(), options)
    train(training, lambda figures: None)
    return training.finish()


def train(training: "Training", report: Report, until: int | None = None) -> None:
    """Resume from the newest checkpoint and train to the end, without the test.

    report: called on every rank after every epoch with the epoch's entry in the history; until: the
    epoch to stop after. Raises Unrecoverable where another try would fail too.
    """
    training.resume()
    training.check_collapse()
    while not has_ended(training.history, training.config) and len(training.history) != until:
        epoch = len(training.history) + 1
        figures = training.recorder.before_epoch(epoch, training.config)
        figures |= training.train_epoch()
        figures |= training.evaluate("val")
        last = has_ended([*training.history, {"epoch": epoch, **figures}], training.config)
        figures |= training.recorder.after_epoch(epoch, training.config, last)
        training.close_epoch(figures)
        report(training.history[-1])


class Training:
    """Holds model, optimizer and history of one training on one rank."""

    def __init__(
        self,
        kind: type[Trainable],
        config: TrainableConfig,
        table: ImageTable,
        checkpoints: Checkpoints,
        options: Options,
    ) -> None:
        """Build the model. Raises Unrecoverable if weights, ValueError if data do not fit."""
        config = kind.settled(config, table.labelled)
        self.config, self.table, self.checkpoints = config, table, checkpoints
        self.seed, self.world, self.options = options.seed, options.world, options
        first = self.seed if options.init_seed is None else options.init_seed
        torch.manual_seed(derived_seed("initialisation", first))
        self.trainable = kind(config, table.info)
        start = options.start or partial(initialize, config=config)
        try:
            self.weight_transfer = start(self.trainable.model.encoder)
        except WeightsError as error:
            raise Unrecoverable(str(error)) from error
        self.trainable.encoder_loaded()
        self.precision = choose_precision(config, self.world.device, table.size)
        self.autocast = partial(self.precision.context, self.world.device)
        self.trainable.model.to(self.world.device).to(memory_format=self.precision.memory_format)
        self.model: nn.Module = self.trainable.model
        if self.world.size > 1:
            synchronize(self.trainable.model, self.world.device)
            self.model = data_parallel(self.trainable.model)
        self.passes = PassCounts(guarded(self.trainable.model, self.precision.autocast))
        self.optimizer = build_optimizer(config, self.trainable.model)
        self.scale = LossScale(self.precision.autocast, self.world.device)
        self.recorder = Recorder(self.trainable, table, self.world, self.autocast, checkpoints.keep)
        if self.trainable.keeps_features:
            _train_on_features(self)
        self.history: list[dict[str, float]] = []  # one entry an epoch
        self.seconds = 0.0  # of all epochs, with their evaluation
        self._began = self._shown = 0.0

    def resume(self) -> None:
        """Load the newest checkpoint if there is one; every rank loads the same."""
        newest = self.checkpoints.newest() if self.world.rank == 0 else None
        handle = self.world.broadcast(newest)
        if handle is not None:
            state = self.checkpoints.read(handle)
            self.trainable.model.load_state_dict(dict(state.weights))
            optimizer = dict(state.optimizer)
            self.scale.load(optimizer.pop(_SCALE, {}))
            self.optimizer.load_state_dict(optimizer)
            self.history = [dict(entry) for entry in state.history]
            self.seconds = state.seconds
        log.info("rank %d of %d on %s: %s; %s; %d of %d epochs done",
                 self.world.rank, self.world.size, self.world.device, self.weight_transfer,
                 self.precision, len(self.history), self.config.epochs)  # fmt: skip
        self._report(0.0, 0.0, 0.0)

    def train_epoch(self) -> dict[str, float]:
        """Train on all training images once. Returns `train/loss` (mean over images), images per
        second, and the share of time in which the device waited for input."""
        epoch, world, trainable = len(self.history) + 1, self.world, self.trainable
        config = self.config.at(epoch)
        set_hyperparameters(self.optimizer, config)
        steps = training_steps(self.table.parts["train"], config.batch_size, self.seed, epoch)
        try:
            check_batch(len(steps[0]), world.size, config.accumulate)
        except ValueError as error:
            raise Unrecoverable(str(error)) from error
        shares = [world.share(step) for step in steps]
        if trainable.MIXES:
            shares = with_partners(shares, self.table, self.seed, epoch)
        stream = BatchStream(self.table, shares, world.device)
        trainable.set_training(True)
        total = torch.zeros((), device=world.device)
        first_bad = torch.full((), math.inf, device=world.device)
        seen, skipped = 0, self.scale.skipped
        self._began = started = time.perf_counter()
        for number, tensors in enumerate(stream):
            set_rate(self.optimizer, config.learning_rate(epoch - 1 + number / len(steps)))
            torch.manual_seed(derived_seed("step", self.seed, epoch, number, world.rank))
            self.optimizer.zero_grad(set_to_none=True)
            batch = Batch(*tensors, self.seed, epoch)
            batch = batch.with_partners() if trainable.MIXES else batch
            batch = with_counted(trainable, batch, world, len(steps[number]))
            # DDP averages over ranks; the mean over samples is wanted
            weight = len(batch.indices) * world.size / len(steps[number]) * self.scale.factor
            loss = backward(trainable, self.model, batch, weight, config.accumulate, self.autocast)
            first_bad = torch.where(loss.isfinite(), first_bad, first_bad.clamp(max=number))
            if world.device.type == "cpu" or number % _FINITE_CHECK == 0:
                check_finite(first_bad, epoch, self.optimizer)
            make_step(self.scale, self.optimizer, self.model, config, epoch)
            self.passes.add()
            done = (number + 1) / len(steps)
            trainable.after_step((epoch - 1 + done) / config.epochs)
            total, seen = total + loss * len(batch.indices), seen + len(steps[number])
            if time.perf_counter() - self._shown > _PROGRESS_SECONDS:
                speed = seen / (time.perf_counter() - started)
                self._report(done, float(total) * world.size / seen, speed)
        check_finite(first_bad, epoch, self.optimizer)
        elapsed = time.perf_counter() - started
        left_out = {"system/skipped_steps": float(self.scale.skipped - skipped)}
        return (left_out if self.scale.used else {}) | {
            "train/loss": float(world.all_reduce_sum(total)) / seen,
            "system/images_per_s": seen / elapsed,
            "system/input_wait_fraction": stream.waited / elapsed,
        }

    def evaluate(self, split: str) -> dict[str, float]:
        """Compute the metrics of a split, such as `val/loss`, over all ranks."""
        sums = self._sums(split)
        if split == "val":
            self.trainable.validated(sums)
        return named_figures(split, self.trainable, sums)

    def _sums(self, split: str) -> dict[str, Tensor]:
        return sums_over(split, self.trainable, self.table, self.world, self.autocast, self.seed)

    def close_epoch(self, figures: Mapping[str, float]) -> None:
        """Add an epoch to the history, save its checkpoint, report it.

        Raises Unrecoverable for a metric that is not finite, and for collapsed features where the
        configuration says `on_collapse: stop`.
        """
        bad = [name for name, value in figures.items() if not math.isfinite(value)]
        if bad:
            raise Unrecoverable(f"{bad[0]} is not finite after epoch {len(self.history) + 1}")
        self.seconds += time.perf_counter() - self._began
        on_gpu = self.world.device.type == "cuda"
        gpus = self.options.gpus * self.world.size if on_gpu else 0.0
        hours = {"system/gpu_hours": self.seconds * gpus / 3600} if gpus else {}
        self.history.append({"epoch": len(self.history) + 1, **figures, **hours})
        shown = ", ".join(f"{name} {value:.4g}" for name, value in figures.items())
        log.info("epoch %d: %s", len(self.history), shown)
        if self.world.rank == 0:
            self.checkpoints.save(_state_of(self), self._best_epoch())
        self._report(0.0, figures["train/loss"], figures["system/images_per_s"])
        self.check_collapse()

    def check_collapse(self) -> None:
        """Warn if the features have collapsed, also before an interruption. Raises Unrecoverable
        where the configuration says `on_collapse: stop`."""
        collapse = collapse_warning(self.history)
        if collapse:
            log.warning(collapse)
        if collapse and getattr(self.config, "on_collapse", "warn") == "stop":
            raise Unrecoverable(f"{collapse}: lower lr or raise target_momentum")

    def finish(self) -> Result:
        """Test once with the weights of the best epoch, and keep the result. Raises Unrecoverable
        if that checkpoint is gone, or the features have collapsed in every epoch."""
        best = _chosen_epoch(self.history, _select(self))
        self.recorder.at_end(len(self.history), self.config)
        if self.world.rank == 0:
            self.checkpoints.settle()
        self.world.broadcast(None)  # no rank reads the best checkpoint before it is stored
        self.trainable.model.load_state_dict(dict(self.checkpoints.weights(best)))
        sums = self._sums("test")
        test = named_figures("test", self.trainable, sums)
        self.recorder.at_test(sums)
        log.info("best epoch %d: %s", best, ", ".join(f"{k} {v:.4g}" for k, v in test.items()))
        facts = with_test_facts(self.facts(), self.trainable, sums)
        result = Result(self.history, best, test, self.seconds, facts)
        if self.world.rank == 0:
            self.checkpoints.finish(result)
        return result

    def facts(self) -> dict[str, str]:
        """Describe where the weights came from, the precision, and warnings if there are any."""
        return {
            "weight_transfer": str(self.weight_transfer),
            "precision": str(self.precision),
            "warning": warnings_of(self.history, self._best_epoch()) if self.history else "",
        }

    def _best_epoch(self) -> int:
        metric = _select(self)
        return best_epoch(self.history, metric, metric_of(metric).mode)

    def _report(self, part: float, loss: float, speed: float) -> None:
        """Report the progress. part: fraction of the running epoch; speed: images per second."""
        self._shown = time.perf_counter()
        if self.world.rank != 0:
            return
        done = len(self.history) + part
        left = (self.config.epochs - done) * len(self.table.parts["train"])
        self.checkpoints.report(
            Progress(
                done=done,
                total=self.config.epochs,
                unit="epochs",
                loss=loss,
                images_per_s=speed,
                seconds_left=left / speed if speed else None,
                history=self.history,
                facts=self.facts(),
            )
        )


def _select(training: Training) -> str:
    """Return the metric that chooses the epoch."""
    return training.trainable.select(as_plain(training.config))


def _state_of(training: Training) -> TrainingState:
    model, optimizer = training.trainable.model.state_dict(), training.optimizer.state_dict()
    if training.scale.used:
        optimizer |= {_SCALE: training.scale.state()}
    history = training.history
    return TrainingState(len(history), model, optimizer, history, training.seconds)


def _train_on_features(training: Training) -> None:
    """Let the training go on with features of its frozen encoder in place of images."""
    world, trainable, recorder = training.world, training.trainable, training.recorder
    numerics = f"{training.precision} {world.device.type} torch {torch.__version__}"
    training.table = with_features(
        trainable, training.table, world, recorder.features, training.options.features, numerics
    )
    keep = training.checkpoints.keep
    training.recorder = Recorder(trainable, training.table, world, training.autocast, keep)


def _chosen_epoch(history: Epochs, metric: str) -> int:
    """Return the epoch that is tested and handed on. Raises Unrecoverable where all collapsed."""
    try:
        return chosen_epoch(history, metric, metric_of(metric).mode)
    except AllCollapsed as error:
        raise Unrecoverable(str(error)) from error
