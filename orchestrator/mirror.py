"""What the store says of Runs → MLflow. The store comes first: nothing is lost while MLflow is
away, nothing is logged twice, and training never waits for it."""

import json
import logging
import tempfile
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

import trainables
from orchestrator.artist import MAPS, Artist
from orchestrator.plan import Run
from orchestrator.plots import run_curves, save
from orchestrator.sealed import MANIFEST
from orchestrator.store import TRAINING, WEIGHTS, Checkpoint, Store
from orchestrator.tracking import ModelFiles, TrackedRun, Tracker, TrackingError

log = logging.getLogger(__name__)
_PERIOD = 2.0  # seconds between two looks at the store
_REFUSALS = 3  # as many are taken for an answer at the end


@dataclass
class Entry:
    """One Run on its way to MLflow."""

    run: Run
    attempt: int
    end: tuple[str, str] | None = None  # (FINISHED, FAILED or KILLED; reason)
    tracked: TrackedRun | None = None
    logged: int = 0  # epochs that MLflow has
    stamps: dict[int, int] = field(default_factory=dict)  # epoch → ms; MLflow drops what it has
    shown: float = 0.0  # time of the progress that MLflow has
    refused: int = 0  # times in a row that MLflow answered: no
    closed: bool = False  # all is sent but for the maps, which take a while
    done: bool = False


class Mirror:
    """Keeps the children of one submission in step with the store."""

    def __init__(
        self,
        tracker: Tracker,
        store: Store,
        submission: TrackedRun,
        facts: Mapping[str, str],
    ) -> None:
        """facts: tags that every Run of the submission carries."""
        self.tracker, self.store, self.submission = tracker, store, submission
        self._facts = facts
        self._children: dict[tuple[str, str], TrackedRun] | None = None
        self._entries: dict[tuple[str, str], Entry] = {}
        self._guard = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._loop, daemon=True)
        self._warned = 0.0
        self._artist = Artist()

    def follow(self, run: Run, end: tuple[str, str] | None = None) -> None:
        """Take up a Run that trains from now on, or that has ended (state, reason) before."""
        with self._guard:
            entry = Entry(run, self.store.attempt(run.key), end)
            self._entries[run.label, str(run.seed)] = entry

    def end(self, run: Run, state: str, reason: str = "") -> None:
        """A Run has ended, also before it was followed. state: FINISHED, FAILED or KILLED."""
        with self._guard:
            name = (run.label, str(run.seed))
            entry = self._entries.setdefault(name, Entry(run, self.store.attempt(run.key)))
            entry.end = (state, reason)

    def drop(self, run: Run) -> None:
        """A Run is somebody else's now: nothing more is said of it."""
        with self._guard:
            del self._entries[run.label, str(run.seed)]

    def start(self) -> None:
        self._thread.start()

    def stop(self, seconds: float) -> bool:
        """Stop when all is sent that MLflow will take, or after `seconds`. Returns whether all is
        sent."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and any(e.refused < _REFUSALS for e in self._unsent()):
            time.sleep(0.1)
        self._stop.set()
        self._thread.join()
        return not self._unsent()

    def _unsent(self) -> list[Entry]:
        with self._guard:
            return [entry for entry in self._entries.values() if entry.end and not entry.done]

    def _loop(self) -> None:
        while not self._stop.wait(_PERIOD):
            try:
                self.flush()
            except TrackingError as error:
                self._warn(error)
            except Exception:  # said, tried again, and told by `stop` if it stays so
                log.exception("results could not be sent to MLflow")

    def flush(self) -> None:
        """Send now what MLflow lacks. Raises TrackingError at the first call it does not answer; a
        Run that it refuses does not keep the others waiting."""
        with self._guard:
            entries = [entry for entry in self._entries.values() if not entry.done]
        refused: TrackingError | None = None
        for entry in entries:
            try:
                if not entry.closed:
                    self._sync(entry)
                if entry.closed:
                    self._send_maps(entry)
                entry.refused = 0
            except TrackingError as error:
                if not error.answered:
                    raise
                entry.refused += 1
                refused = error
        if refused:
            raise refused

    def finish(self) -> None:
        """Like `flush`, and wait for what is being drawn."""
        self.flush()
        while any(entry.closed and not entry.done for entry in self._entries.values()):
            self._artist.wait()
            self.flush()

    def _warn(self, error: TrackingError) -> None:
        if time.monotonic() - self._warned > 30:
            self._warned = time.monotonic()
            log.warning("MLflow lacks results; it is tried again, training goes on: %s", error)

    # --- one Run -------------------------------------------------------------------------------

    def _sync(self, entry: Entry) -> None:
        """Send what MLflow lacks of one Run."""
        end = entry.end  # before the store is read: what ended has written all it will
        if entry.tracked is None:
            entry.tracked = self._open(entry)
            if end and end[0] == entry.tracked.status == "FINISHED":
                entry.closed = True  # it was sent by an earlier submission
                return
        run_id = entry.tracked.run_id
        result = self.store.result(entry.run.key) if end and end[0] == "FINISHED" else None
        progress = self._progress(entry)
        history = result["history"] if result else progress["history"] if progress else []
        new = [epoch for epoch in history if epoch["epoch"] > entry.logged]
        if new:
            self.tracker.log_epochs(run_id, new, entry.stamps)
            entry.logged = int(new[-1]["epoch"])
        if progress and not result:
            self._show(entry, run_id, progress)
        if end is not None:
            if result:
                self._send_result(entry, entry.tracked, result)
            self._send_logs(entry.run, entry.tracked)
            if end[1]:
                self.tracker.set_tags(run_id, {"reason": end[1]})
            self.tracker.set_status(run_id, end[0])
            entry.closed = True

    def _progress(self, entry: Entry) -> dict[str, Any] | None:
        found = self.store.progress(entry.run.key)
        return found if found and found["attempt"] >= entry.attempt else None

    def _show(self, entry: Entry, run_id: str, progress: Mapping[str, Any]) -> None:
        """How far the running epoch is, for whoever follows."""
        if progress["time"] != entry.shown:
            shown = {key: value for key, value in progress.items() if key != "history"}
            facts = {"warning": shown["facts"].get("warning", "")}
            self.tracker.set_tags(run_id, {"progress": json.dumps(shown), **facts})
            entry.shown = progress["time"]

    def _open(self, entry: Entry) -> TrackedRun:
        """The MLflow run of a Run: the submission's own from before, or a new one."""
        if self._children is None:  # at first, and when it is not known what was answered
            children = self.tracker.children(self.submission)
            self._children = {_name(child.tags): child for child in children}
        run, child = entry.run, self._children.get((entry.run.label, str(entry.run.seed)))
        if child is not None:
            first = run.select if run.artifacts else "train/loss"
            entry.logged = self.tracker.last_epoch(child.run_id, first)
            if not (child.status == "FINISHED" and entry.end):
                self.tracker.set_tags(child.run_id, {"attempt": str(entry.attempt), "reason": ""})
            if entry.end is None:
                self.tracker.set_status(child.run_id, "RUNNING")
            if "opened" not in child.tags:  # whoever made it died over it
                self._describe(run, child.run_id, child.tags.get("kind") == "reused")
            return child
        origin = self.store.origin(run.key)
        reused = origin is not None and entry.end is not None and entry.end[0] == "FINISHED"
        tags = {
            **self._facts,
            "stage": run.stage,
            "label": run.label,
            "seed": str(run.seed),
            "kind": "reused" if reused else "run",
            "run_key": run.key,
            "parent_keys": run.parent or "none",
            "attempt": str(entry.attempt),
            "trainable": run.trainable,
            "dataset": run.dataset,
            "code_version": run.code,
        }
        if reused and origin is not None:
            tags["reused_from"] = origin["run_id"]
        known, self._children = self._children, None
        run_id = self.tracker.create_run(
            self.submission.experiment_id, run.name, tags, self.submission.run_id
        )
        self._describe(run, run_id, reused)
        known[run.label, str(run.seed)] = tracked = self.tracker.run(run_id)
        self._children = known
        return tracked

    def _describe(self, run: Run, run_id: str, reused: bool) -> None:
        """What a Run is, once; the tag `opened` says that it is whole."""
        self.tracker.log_params(run_id, {**_flat(run.config), "seed": run.seed})
        text = yaml.safe_dump(dict(run.config), sort_keys=False)
        self.tracker.log_text(run_id, text, "config.yaml")
        if not reused:
            self.store.set_origin(run.key, {"run_id": run_id, "uri": self.tracker.uri})
        self.tracker.set_tags(run_id, {"opened": "true"})

    def _send_result(self, entry: Entry, tracked: TrackedRun, result: Mapping[str, Any]) -> None:
        """Test figures, plots and models; what MLflow already has is not sent again."""
        run, best = entry.run, int(result["best_epoch"])
        have = self.tracker.run(tracked.run_id)
        if not all(name in have.metrics for name in result["test"]):
            self.tracker.log_epochs(
                tracked.run_id, [{"epoch": best, **result["test"]}], entry.stamps
            )
        self.tracker.set_tags(
            tracked.run_id,
            {**result["facts"], "best_epoch": str(best), "epochs": str(len(result["history"]))},
        )
        if run.artifacts:
            if "artifacts" not in have.tags and tracked.tags.get("kind") != "reused":
                self._send_artifacts(run, tracked)
                self.tracker.set_tags(tracked.run_id, {"artifacts": f"{run.artifacts}/"})
            return
        if "plots" not in have.tags:
            self._send_plots(run, tracked, result)
            self.tracker.set_tags(tracked.run_id, {"plots": "plots/"})
        if tracked.tags.get("kind") == "reused":
            return
        last = len(result["history"])
        for name, epoch in {"best": best, "last": last}.items():
            if f"model_{name}" not in have.tags:
                uri = self._send_model(run, tracked, name, epoch)
                self.tracker.set_tags(tracked.run_id, {f"model_{name}": uri})

    def _send_artifacts(self, run: Run, tracked: TrackedRun) -> None:
        """What a producer has made; its manifest names every file with its sha256."""
        checkpoint = self.store.best(run.key)
        if checkpoint is None:
            log.warning("%s: what it made is damaged, and is not sent", run.name)
        else:
            self.tracker.log_files(tracked.run_id, checkpoint.path, run.artifacts)

    def _send_logs(self, run: Run, tracked: TrackedRun) -> None:
        """What every rank of every attempt had to say; a reused Run's stand with the original."""
        logs = self.store.logs(run.key)
        if logs and tracked.tags.get("kind") != "reused":
            self.tracker.log_files(tracked.run_id, next(iter(logs.values())).parent, "logs")

    def _send_plots(self, run: Run, tracked: TrackedRun, result: Mapping[str, Any]) -> None:
        history = [*result["history"], {"epoch": result["best_epoch"], **result["test"]}]
        series: dict[str, list[tuple[int, float]]] = {}
        for entry in history:
            for name, value in entry.items():
                if name != "epoch":
                    series.setdefault(name, []).append((int(entry["epoch"]), float(value)))
        with tempfile.TemporaryDirectory() as folder:
            for name, figure in run_curves(series, int(result["best_epoch"])).items():
                save(figure, Path(folder) / f"{name}.png")
            self.tracker.log_files(tracked.run_id, Path(folder), "plots")

    def _send_maps(self, entry: Entry) -> None:
        """Pictures, once another process has drawn them: nothing waits for it."""
        assert entry.tracked is not None and entry.end is not None
        run_id, folder = entry.tracked.run_id, self.store.features(entry.run.key)
        if folder is None or entry.end[0] != "FINISHED" or "maps" in entry.tracked.tags:
            entry.done = True
        elif self._artist.has_drawn(folder):
            fault = self._artist.faults.get(folder)
            if fault is None:
                self.tracker.log_files(run_id, folder / MAPS)
            else:
                log.warning("%s: no maps and no diagram: %s", entry.run.name, fault)
            self.tracker.set_tags(run_id, {"maps": f"none: {fault}" if fault else "plots/"})
            entry.done = True

    def _send_model(self, run: Run, tracked: TrackedRun, name: str, epoch: int) -> str:
        """The best checkpoint as a model that predicts; the last one as its files."""
        checkpoint = self.store.load(run.key, epoch)
        if checkpoint is None:
            log.warning("%s: no model of epoch %d is logged: it is damaged", run.name, epoch)
            return "damaged"
        predicts = name == "best" and run.predicts
        facts = {
            "epoch": str(epoch),
            "metric": f"{run.select}={checkpoint.info['history'][-1][run.select]:.6g}",
            "run_key": run.key,
            "address": str(checkpoint.path),
            "sha256": checkpoint.files[WEIGHTS]["sha256"],
        }
        with tempfile.TemporaryDirectory() as folder:
            files = _model_files(checkpoint, Path(folder))
            code = Path(trainables.__file__).parent if predicts else None
            return self.tracker.log_model(
                tracked, ModelFiles(files, f"{run.stage}-{name}", code, facts, epoch)
            )


def _model_files(checkpoint: Checkpoint, folder: Path) -> Path:
    """A folder with what predicting needs: weights and description, not the optimizer."""
    for path in checkpoint.path.iterdir():
        if path.name not in (TRAINING, MANIFEST):
            (folder / path.name).symlink_to(path)
    return folder


def _name(tags: Mapping[str, str]) -> tuple[str, str]:
    return tags["label"], tags["seed"]


def _flat(config: Mapping[str, Any]) -> dict[str, Any]:
    """Nested mappings as dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            flat |= {f"{key}.{inner}": v for inner, v in value.items()}
        else:
            flat[key] = value
    return flat
