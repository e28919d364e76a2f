"""THE epoch loop: every rank, every trainable. What it reports to is handed in.

One process a rank calls `train`. Rank 0 writes to the store; nothing here knows of MLflow.
"""

import logging
import math
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from orchestrator import tensors
from orchestrator.collapse import warning
from orchestrator.history import best_epoch, has_ended
from orchestrator.home import write_json
from orchestrator.looks import Looks
from orchestrator.store import TRAINING, WEIGHTS, Store
from orchestrator.task import RunFault, Task, full_disk_is_said, worker_facts
from trainables.backbones import HandOff, WeightsError, initialise, load_encoder
from trainables.batches import BatchStream, check_batch, evaluation_steps, training_steps
from trainables.batchnorm import synchronise
from trainables.catalog import TRAINABLES
from trainables.optimizers import build_optimizer, set_hyperparameters, set_rate
from trainables.precision import choose
from trainables.predict import MODEL, describe_model
from trainables.randomness import derived_seed
from trainables.step import backward
from trainables.table import ImageTable, open_table
from trainables.trainable import Batch, DataInfo
from trainables.world import World, data_parallel

log = logging.getLogger(__name__)
Report = Callable[[Mapping[str, float]], None]
_PROGRESS_SECONDS = 1.0
_FINITE_CHECK = 50  # steps between two looks at a GPU's losses; a CPU is looked at every step


def train(task: Task, world: World, report: Report) -> None:
    """Train a Run to its end and write its result to the store, from wherever it was left.

    report: called on every rank after every epoch, with its number and figures. Raises RunFault
    when trying again would not help, StaleWriter when a newer attempt has taken over.
    """
    with full_disk_is_said(task):
        run = Training(task, world)
        run.resume()
        run.look_for_collapse()
        while not has_ended(run.history, run.config) and len(run.history) != task.until:
            figures = run.train_epoch()
            figures |= run.evaluate("val")
            figures |= run.looks.after_epoch(len(run.history) + 1, run.config)
            run.close_epoch(figures)
            report(run.history[-1])
        if task.tested:
            run.finish()


class Training:
    """Everything that lives as long as one attempt of a Run."""

    def __init__(self, task: Task, world: World) -> None:
        self.task, self.world, self.store = task, world, Store(Path(task.store))
        kind = TRAINABLES[task.trainable]
        self.config = kind.Config.model_validate(dict(task.config))
        self.table: ImageTable = open_table(Path(task.table))
        torch.manual_seed(derived_seed("initialisation", task.seed))
        self.trainable = kind(self.config, DataInfo(self.table.classes, self.table.size))
        self.hand_off = self._hand_off()
        self.trainable.handed_off()
        self.numerics = choose(self.config, world.device, self.table.size)
        self.autocast = partial(self.numerics.context, world.device)
        self.trainable.model.to(world.device).to(memory_format=self.numerics.memory_format)
        self.model: nn.Module = self.trainable.model
        if world.size > 1:
            synchronise(self.trainable.model, world.device)
            self.model = data_parallel(self.trainable.model)
        self.optimizer = build_optimizer(self.config, self.trainable.model)
        self.looks = Looks(self.trainable, self.table, world, self.autocast, self._keep)
        self.history: list[dict[str, float]] = []  # one entry an epoch
        self.seconds = 0.0  # of all epochs, with their evaluation
        self._began = self._shown = 0.0

    def _hand_off(self) -> HandOff:
        """Weights into the encoder: the parent's, or what the configuration names."""
        encoder, parent_key = self.trainable.model.encoder, self.task.parent
        try:
            if parent_key is None:
                return initialise(encoder, self.config)
            epoch = self.task.parent_epoch
            store = self.store
            parent = store.best(parent_key) if epoch is None else store.load(parent_key, epoch)
            if parent is None:
                raise RunFault(
                    f"the checkpoint of parent {self.task.parent_label} ({parent_key}) is gone "
                    "or damaged: submit again, and the parent is trained again"
                )
            state = tensors.load(parent.weights)
            return load_encoder(encoder, state, f"{self.task.parent_label} epoch {parent.epoch}")
        except WeightsError as error:
            raise RunFault(str(error)) from error

    def resume(self) -> None:
        """Go on from the newest checkpoint that verifies; every rank takes the same one."""
        newest = self.store.newest(self.task.key) if self.world.rank == 0 else None
        checkpoint = self.world.from_first(newest)
        if checkpoint is not None:
            self.trainable.model.load_state_dict(tensors.load(checkpoint.weights))
            self.optimizer.load_state_dict(tensors.load(checkpoint.training)["optimizer"])
            self.history = list(checkpoint.info["history"])
            self.seconds = float(checkpoint.info["seconds"])
        log.info("%s seed %d, attempt %d, rank %d of %d on %s: %s; %s; %d of %d epochs done",
                 self.task.label, self.task.seed, self.task.attempt, self.world.rank,
                 self.world.size, self.world.device, self.hand_off, self.numerics,
                 len(self.history), self.config.epochs)  # fmt: skip
        self._say(0.0, 0.0, 0.0)

    def train_epoch(self) -> dict[str, float]:
        """One pass over the training images. Returns train/loss and the system's figures."""
        epoch, world = len(self.history) + 1, self.world
        config = self.config.at(epoch)
        set_hyperparameters(self.optimizer, config)
        steps = training_steps(self.table.parts["train"], config.batch_size, self.task.seed, epoch)
        try:
            check_batch(len(steps[0]), world.size, config.accumulate)
        except ValueError as error:
            raise RunFault(str(error)) from error
        stream = BatchStream(self.table, [world.share(step) for step in steps], world.device)
        self.trainable.set_training(True)
        total = torch.zeros((), device=world.device)
        first_bad = torch.full((), math.inf, device=world.device)
        started, seen = time.perf_counter(), 0
        self._began = started
        for number, (images, labels, indices) in enumerate(stream):
            set_rate(self.optimizer, config.learning_rate(epoch - 1 + number / len(steps)))
            torch.manual_seed(derived_seed("step", self.task.seed, epoch, number, world.rank))
            self.optimizer.zero_grad(set_to_none=True)
            batch = Batch(images, labels, indices, self.task.seed, epoch)
            # DDP takes the mean over ranks; what is wanted is the mean over samples
            weight = len(indices) * world.size / len(steps[number])
            parts = config.accumulate
            loss = backward(self.trainable, self.model, batch, weight, parts, self.autocast)
            first_bad = torch.where(loss.isfinite(), first_bad, first_bad.clamp(max=number))
            if world.device.type == "cpu" or number % _FINITE_CHECK == 0:
                self._check_finite(first_bad, epoch)
            if config.clip_grad_norm is not None:
                nn.utils.clip_grad_norm_(self.model.parameters(), config.clip_grad_norm)
            self.optimizer.step()
            done = (number + 1) / len(steps)
            self.trainable.after_step((epoch - 1 + done) / config.epochs)
            total += loss * len(indices)
            seen += len(steps[number])
            if time.perf_counter() - self._shown > _PROGRESS_SECONDS:
                speed = seen / (time.perf_counter() - started)
                self._say(done, float(total) * world.size / seen, speed)
        self._check_finite(first_bad, epoch)
        elapsed = time.perf_counter() - started
        figures = {
            "train/loss": float(world.total(total)) / seen,
            "system/images_per_s": seen / elapsed,
            "system/input_wait_fraction": stream.waited / elapsed,
        }
        return figures

    def evaluate(self, part: str) -> dict[str, float]:
        """Exact figures over a split: every sample counts once, however many ranks there are."""
        return self._figures(part, self.sums(part))

    def _figures(self, part: str, sums: Mapping[str, Tensor]) -> dict[str, float]:
        return {f"{part}/{name}": v for name, v in self.trainable.metrics(sums).items()}

    @torch.inference_mode()
    def sums(self, part: str) -> dict[str, Tensor]:
        """What the trainable sums over a split, of all ranks."""
        self.trainable.set_training(False)
        at_once = self.trainable.evaluated_at_once(self.table.size) * self.world.size
        steps = evaluation_steps(self.table.parts[part], at_once)
        shares = [self.world.share(step) for step in steps]
        sums: dict[str, Tensor] = {}
        for images, labels, indices in BatchStream(self.table, shares, self.world.device):
            with self.autocast():
                batch = Batch(images, labels, indices, self.task.seed, 0)
                for name, value in self.trainable.evaluate(batch).items():
                    sums[name] = sums[name] + value if name in sums else value
        return {name: self.world.total(value) for name, value in sums.items()}

    def _keep(self, file: str, arrays: Mapping[str, Any]) -> None:
        """For a picture that somebody else makes."""
        write = partial(tensors.save_arrays, arrays)
        self.store.keep(self.task.key, self.task.attempt, file, write)

    def close_epoch(self, figures: Mapping[str, float]) -> None:
        """Write the checkpoint of the epoch, then say that it is done. A collapse may end it."""
        bad = [name for name, value in figures.items() if not math.isfinite(value)]
        if bad:
            raise RunFault(f"{bad[0]} is not finite after epoch {len(self.history) + 1}")
        self.seconds += time.perf_counter() - self._began
        gpus = self.task.gpus * self.world.size if self.world.device.type == "cuda" else 0.0
        hours = {"system/gpu_hours": self.seconds * gpus / 3600} if gpus else {}
        self.history.append({"epoch": len(self.history) + 1, **figures, **hours})
        shown = ", ".join(f"{name} {value:.4g}" for name, value in figures.items())
        log.info("epoch %d: %s", len(self.history), shown)
        if self.world.rank == 0:
            self._save()
        self._say(0.0, figures["train/loss"], figures["system/images_per_s"])
        self.look_for_collapse()

    def look_for_collapse(self) -> None:
        """Warn of it, or end the Run, as the study says; also of one that an attempt before saw."""
        collapse = warning(self.history, self.trainable.width)
        if collapse:
            log.warning(collapse)
        if collapse and getattr(self.config, "on_collapse", "warn") == "stop":
            raise RunFault(f"{collapse}: lower lr or raise target_momentum")

    def _save(self) -> None:
        epoch, task, best = len(self.history), self.task, self._best_epoch()
        if best != epoch:  # it cannot be trained again from what is kept, so it is kept twice
            self.store.spare(task.key, task.attempt, best)
        weights = self.trainable.model.state_dict()
        training = {"optimizer": self.optimizer.state_dict()}
        model = describe_model(task.trainable, self.config, self.table)
        self.store.save(
            task.key,
            task.attempt,
            epoch,
            {
                WEIGHTS: lambda path: tensors.save(weights, path),
                TRAINING: lambda path: tensors.save(training, path),
                MODEL: lambda path: write_json(path, model),
            },
            {"history": self.history, "seconds": self.seconds},
        )
        self.store.prune(task.key, task.attempt, best)

    def finish(self) -> None:
        """Test once, with the checkpoint that validation chose, and write the result."""
        best = self._best_epoch()
        self.looks.at_end(len(self.history), self.config)
        checkpoint = self.store.load(self.task.key, best)
        if checkpoint is None:
            if self.world.rank == 0:
                self.store.forget(self.task.key)
            raise RunFault(
                f"the best checkpoint (epoch {best}) is damaged: submit again, and the Run is "
                "trained anew"
            )
        self.trainable.model.load_state_dict(tensors.load(checkpoint.weights))
        sums = self.sums("test")
        test = self._figures("test", sums)
        absent = self.trainable.absent(sums)
        self.looks.at_test(sums)
        log.info("best epoch %d: %s", best, ", ".join(f"{k} {v:.4g}" for k, v in test.items()))
        if self.world.rank == 0:
            self.store.spare(self.task.key, self.task.attempt, best)
            self.store.finish(
                self.task.key,
                self.task.attempt,
                {
                    "history": self.history,
                    "best_epoch": best,
                    "test": test,
                    "seconds": self.seconds,
                    "facts": self.facts() | ({"absent": ", ".join(absent)} if absent else {}),
                },
            )
            self.store.prune(self.task.key, self.task.attempt, best, keep=1)

    def facts(self) -> dict[str, str]:
        """What is worth knowing of this attempt, for tags."""
        return worker_facts(self.world) | {
            "numerics": str(self.numerics),
            "hand_off": str(self.hand_off),
            "warning": warning(self.history, self.trainable.width),
        }

    def _best_epoch(self) -> int:
        metric, mode = self.trainable.select(self.task.config)
        return best_epoch(self.history, metric, mode)

    def _check_finite(self, first_bad: Tensor, epoch: int) -> None:
        step = float(first_bad)
        if math.isfinite(step):
            rate = self.optimizer.param_groups[0]["lr"]
            raise RunFault(
                f"the loss is not finite at epoch {epoch}, step {int(step) + 1}: most likely the "
                f"learning rate ({rate:g}) is too high; lower lr, or set warmup_epochs or "
                "clip_grad_norm"
            )

    def _say(self, part: float, loss: float, speed: float) -> None:
        """Write how far the Run is. part: fraction of the running epoch; speed: images/s."""
        self._shown = time.perf_counter()
        if self.world.rank != 0:
            return
        left = (self.config.epochs - len(self.history) - part) * len(self.table.parts["train"])
        self.store.report(
            self.task.key,
            self.task.attempt,
            {
                "epoch": len(self.history),
                "part": part,
                "epochs": self.config.epochs,
                "loss": loss,
                "images_per_s": speed,
                "seconds_left": left / speed if speed else None,
                "history": self.history,
                "facts": self.facts(),
            },
        )
