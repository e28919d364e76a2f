"""The loop of producers: every rank takes images in turn and stores what it made of each at once,
with a record of the files, so that an interrupted Run continues with the images it lacks."""

import json
import logging
import shutil
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from orchestrator.execution.task import Task, full_disk_ends_the_run, worker_facts
from orchestrator.mirror.node_copy import fetch_table, open_copy
from orchestrator.storage.manifest import (
    NOTE,
    PRODUCED,
    describe,
    finished_images,
    has_files_of,
    read_manifest,
)
from orchestrator.storage.run_records import Store
from trainables.data.watched import watched_rows
from trainables.dataset import Indices
from trainables.engine.checkpoints import Progress, Report, Unrecoverable
from trainables.loading.image_files import OriginalImages, open_images, short_names
from trainables.numerics.distributed import World
from trainables.pixels.images import UnreadableImage
from trainables.producer import Product
from trainables.schemas.producer import ProducerConfig
from trainables.tasks.registry import PRODUCERS

log = logging.getLogger(__name__)
_RESULT = "epoch_00001"  # a producer's only checkpoint
_POLL_SECONDS = 1.0


def produce(task: Task, world: World, report: Report) -> None:
    """Produce what is missing of a Run's images and write its result to the store.

    report: not called, since there are no epochs. Raises Unrecoverable when trying again would not
    help, StaleWriter when a newer attempt has begun.
    """
    with full_disk_ends_the_run(task):
        fetch_table(task.objects, Path(task.table))
        run = Store(Path(task.store)).run(task.key)
        with open_copy(task.objects, run, task.attempt, world.rank) or nullcontext():
            production = Production(task, world)
            production.produce_missing()
            if world.rank == 0:
                production.finish()


class Production:
    """One attempt of a producer's Run, on one rank."""

    def __init__(self, task: Task, world: World) -> None:
        self.task, self.world = task, world
        run = Store(Path(task.store)).run(task.key)
        self.folder, self.writer = run.path, run.writer(task.attempt)
        self.kind = PRODUCERS[task.trainable]
        self.config = self.kind.Config.model_validate(dict(task.config))
        self.pictures = open_images(Path(task.table))
        self.rows = chosen_rows(self.pictures, self.config)
        self.names = short_names(self.pictures.names, self.rows)
        self.started, self.done_before = time.perf_counter(), 0

    def produce_missing(self) -> None:
        """Produce this rank's share of the images that are not finished."""
        world = self.world
        if world.rank == 0:
            self._restore()
        done = world.broadcast(set(finished_images(self.folder)) if world.rank == 0 else None)
        self.done_before = len(done & set(self.names))
        todo = [pair for pair in zip(self.rows, self.names, strict=True) if pair[1] not in done]
        mine = todo[world.rank :: world.size]
        log.info("%s, attempt %d, rank %d of %d on %s: %d of %d images finished, %d to do here",
                 self.task.label, self.task.attempt, world.rank, world.size, world.device,
                 self.done_before, len(self.names), len(mine))  # fmt: skip
        self._report()
        if not mine:
            return
        try:
            producer = self.kind(self.config, world.device)
        except ValueError as error:
            raise Unrecoverable(str(error)) from error
        for row, name in mine:
            began = time.perf_counter()
            try:
                image, truth = self.pictures.open(int(row))
                product = producer.produce(name, image, truth, len(self.pictures.classes))
            except (UnreadableImage, ValueError) as error:
                raise Unrecoverable(f"{self.pictures.names[row]}: {error}") from error
            self._store(name, product, time.perf_counter() - began)
            self._report()

    def _restore(self) -> None:
        """Take over the undamaged images of an earlier result that is no longer whole."""
        result = read_manifest(self.folder / _RESULT)
        for name, note in (result or {}).get("info", {}).get("notes", {}).items():
            if has_files_of(self.folder / _RESULT, note) and name not in finished_images(
                self.folder
            ):
                for file in note["files"]:
                    self._put(file, partial(_copy, self.folder / _RESULT / file))
                self._put(f"{name}{NOTE}", partial(_dump, note))

    def _put(self, file: str, write: Callable[[Path], None]) -> None:
        self.writer.put_optional(f"{PRODUCED}/{file}", write)

    def _store(self, name: str, product: Product, seconds: float) -> None:
        """Store the files of an image, then the record: an image with a record is whole."""
        files = {f"{name}{ending}": content for ending, content in product.files.items()}
        for file, content in files.items():
            self._put(file, partial(_write, content))
        described = {file: describe(self.folder / PRODUCED / file) for file in files}
        note = {"files": described, "figures": dict(product.figures), "seconds": seconds}
        self._put(f"{name}{NOTE}", partial(_dump, note))
        log.info("%s: %s in %.1f s", name, dict(product.figures), seconds)

    def finish(self) -> None:
        """Wait for all ranks, then write the result. Ray ends this rank when another one dies."""
        while not self._all_noted():
            time.sleep(_POLL_SECONDS)
            self._report()
        notes = finished_images(self.folder)
        damaged = [name for name in self.names if name not in notes]
        if damaged:
            raise Unrecoverable(
                f"{damaged[0]} is damaged: submit again, and the image is produced again"
            )
        records = {name: notes[name] for name in self.names}
        history = [{"epoch": 1, **means([note["figures"] for note in records.values()])}]
        seconds = sum(note["seconds"] for note in records.values())
        folder = self.folder / PRODUCED
        files: dict[str, Callable[[Path], None]] = {
            file: partial(_copy, folder / file)
            for note in records.values()
            for file in note["files"]
        }
        info = {"history": history, "seconds": seconds, "notes": records}
        self.writer.save(1, files, info)
        result = {
            "history": history,
            "best_epoch": 1,
            "test": {},
            "seconds": seconds,
            "facts": worker_facts(self.world) | {"images": str(len(records))},
        }
        self.writer.finish(result)
        shutil.rmtree(folder, ignore_errors=True)

    def _all_noted(self) -> bool:
        return all((self.folder / PRODUCED / f"{name}{NOTE}").is_file() for name in self.names)

    def _report(self) -> None:
        """Report how many images are finished, on rank 0, which counts the records of all ranks."""
        if self.world.rank != 0:
            return
        folder = self.folder / PRODUCED
        done = sum(1 for _ in folder.glob(f"*{NOTE}"))
        speed = (done - self.done_before) / (time.perf_counter() - self.started)
        progress = Progress(
            done=done,
            total=len(self.names),
            unit="images",
            loss=None,
            images_per_s=speed,
            seconds_left=(len(self.names) - done) / speed if speed > 0 else None,
            history=[],
            facts=worker_facts(self.world),
        )
        self.writer.report(asdict(progress))


def chosen_rows(pictures: OriginalImages, config: ProducerConfig) -> Indices:
    """Return the rows of the images that a producer works on. Raises DataError for a name that no
    image has, or more than one."""
    if config.images == "all" and not config.watch:
        return pictures.rows
    held_out = pictures.held_out.tolist()
    rows = watched_rows(pictures.names, pictures.validation, config.watch, held_out)
    return rows[np.isin(rows, pictures.rows)]


def means(figures: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the mean of every figure, over the images that have it."""
    names = dict.fromkeys(name for image in figures for name in image)
    return {name: statistics.fmean(f[name] for f in figures if name in f) for name in names}


def _write(content: bytes, path: Path) -> None:
    path.write_bytes(content)


def _dump(note: Mapping[str, Any], path: Path) -> None:
    path.write_text(json.dumps(note), encoding="utf-8")


def _copy(source: Path, path: Path) -> None:
    shutil.copyfile(source, path)
