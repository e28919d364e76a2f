"""What the store says of Runs → MLflow. The store comes first: nothing is lost while MLflow is
away, nothing is logged twice, and training never waits for it."""

import json
import logging
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import yaml

from orchestrator.planning.run import Run
from orchestrator.storage.run_records import Store
from orchestrator.tracking.mlflow_client import TrackedRun, Tracker, TrackingError
from orchestrator.tracking.publisher import Epoch, Publisher
from orchestrator.tracking.render_process import RenderProcess
from trainables.monitoring.record_files import MAPS

log = logging.getLogger(__name__)
_PERIOD = 2.0  # seconds between two looks at the store
_REFUSALS = 3  # as many are taken for an answer at the end


@dataclass
class Entry:
    """One Run on its way to MLflow."""

    run: Run
    attempt: int
    end: tuple[str, str] | None = None  # (FINISHED, FAILED or KILLED; reason)
    outcome: str = ""  # of a trial that ended well
    drawn: Mapping[str, Any] = field(default_factory=dict)  # by a search, of what it starts from
    ancestry: Sequence[Mapping[str, Any]] = ()  # of a population: whose weights it goes on with
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
        kind: Literal["run", "trial"] = "run",
    ) -> None:
        """facts: tags that every Run of the submission carries. kind `trial`: `submission` is a
        search, and what was tested is none of its business."""
        self.tracker, self.store, self.submission = tracker, store, submission
        self._facts, self._kind = facts, kind
        self._note: dict[str, str] = {}  # tags of the submission itself that MLflow lacks
        self._children: dict[tuple[str, str], TrackedRun] | None = None
        self._entries: dict[tuple[str, str], Entry] = {}
        self._guard = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._loop, daemon=True)
        self._warned, self._note_refused = 0.0, 0
        self._artist, self._publisher = RenderProcess(), Publisher(tracker, store)

    def follow(
        self,
        run: Run,
        end: tuple[str, str] | None = None,
        drawn: Mapping[str, Any] | None = None,
        ancestry: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        """Take up a Run that trains from now on, or that has ended (state, reason) before. drawn:
        parameters of what it starts from, where a search chose them too. ancestry: as a trial of a
        population has it."""
        with self._guard:
            attempt = self.store.run(run.key).attempt()
            entry = Entry(run, attempt, end, drawn=drawn or {}, ancestry=ancestry)
            self._entries[run.label, str(run.seed)] = entry

    def say(self, tags: Mapping[str, str]) -> None:
        """Tags of the submission itself, sent with the next flush."""
        with self._guard:
            self._note |= tags

    def end(
        self,
        run: Run,
        state: str,
        reason: str = "",
        outcome: str = "",
        drawn: Mapping[str, Any] | None = None,
        ancestry: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        """A Run has ended, also before it was followed. state: FINISHED, FAILED or KILLED.
        outcome: of a trial that is FINISHED, `finished` or `stopped_early`. drawn, ancestry: as
        above."""
        with self._guard:
            name, end = (run.label, str(run.seed)), (state, reason)
            entry = self._entries.get(name)
            # another end than the one that was sent, or that of an heir, is news
            if entry is None or entry.run.key != run.key or (entry.closed and entry.end != end):
                attempt = self.store.run(run.key).attempt()
                entry = Entry(run, attempt, drawn=drawn or {}, ancestry=ancestry)
                self._entries[name] = entry
            entry.end, entry.outcome = end, outcome

    def drop(self, run: Run) -> None:
        """A Run is somebody else's now: nothing more is said of it."""
        with self._guard:
            del self._entries[run.label, str(run.seed)]

    def start(self) -> None:
        self._thread.start()

    def stop(self, seconds: float) -> bool:
        """Stop when what MLflow takes is sent, or after `seconds`. Returns whether all is sent."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and self._is_hopeful():
            time.sleep(0.1)
        self._stop.set()
        self._thread.join()
        return not self._unsent() and not self._note

    def _is_hopeful(self) -> bool:
        """Whether there is something to be sent that was not refused again and again."""
        refusals = [entry.refused for entry in self._unsent()]
        if self._note:
            refusals.append(self._note_refused)
        return any(count < _REFUSALS for count in refusals)

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
            note = dict(self._note)
        if note:
            self._send_note(note)
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

    def _send_note(self, note: dict[str, str]) -> None:
        try:
            self.tracker.set_tags(self.submission.run_id, note)
        except TrackingError as error:
            self._note_refused += error.answered
            raise
        with self._guard:
            self._note = {key: v for key, v in self._note.items() if note.get(key) != v}

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
            same = entry.outcome == entry.tracked.tags.get("outcome", "")
            if end and end[0] == entry.tracked.status == "FINISHED" and same:
                entry.closed = True  # it was sent by an earlier submission
                return
        progress = self._progress(entry)
        result, history = self._said(entry.run, end, progress)
        new = [epoch for epoch in history if epoch["epoch"] > entry.logged]
        if new:
            self.tracker.log_epochs(entry.tracked.run_id, new, entry.stamps)
            entry.logged = int(new[-1]["epoch"])
        if progress and not result:
            self._show(entry, entry.tracked.run_id, progress)
        if end is not None:
            self._close(entry, entry.tracked, end, result, history)

    def _said(
        self, run: Run, end: tuple[str, str] | None, progress: Mapping[str, Any] | None
    ) -> tuple[dict[str, Any] | None, Sequence[Epoch]]:
        """What the store says of a Run: its result, and its epochs so far."""
        if end is not None and self._kind == "trial":
            return None, self.store.run(run.key).history()
        result = self.store.run(run.key).result() if end and end[0] == "FINISHED" else None
        return result, result["history"] if result else progress["history"] if progress else []

    def _close(
        self,
        entry: Entry,
        tracked: TrackedRun,
        end: tuple[str, str],
        result: Mapping[str, Any] | None,
        history: Sequence[Epoch],
    ) -> None:
        if result:
            self._publisher.result(entry.run, tracked, result, entry.stamps)
        elif history and entry.outcome:
            self._publisher.trial(entry.run, tracked, history, entry.outcome)
        self._publisher.logs(entry.run, tracked)
        if end[1]:
            self.tracker.set_tags(tracked.run_id, {"reason": end[1]})
        self.tracker.set_status(tracked.run_id, end[0])
        entry.closed = True

    def _progress(self, entry: Entry) -> dict[str, Any] | None:
        found = self.store.run(entry.run.key).progress()
        return found if found and found["attempt"] >= entry.attempt else None

    def _show(self, entry: Entry, run_id: str, progress: Mapping[str, Any]) -> None:
        """How far the running epoch is, for whoever follows."""
        if progress["time"] != entry.shown:
            shown = {key: value for key, value in progress.items() if key != "history"}
            tags = {"progress": json.dumps(shown), "attempt": str(progress["attempt"])}
            self.tracker.set_tags(run_id, tags | {"warning": shown["facts"].get("warning", "")})
            entry.shown = progress["time"]

    def _open(self, entry: Entry) -> TrackedRun:
        """The MLflow run of a Run: the submission's own from before, or a new one."""
        if self._children is None:  # at first, and when it is not known what was answered
            children = self.tracker.children(self.submission)
            self._children = {_name(child.tags): child for child in children}
        run, child = entry.run, self._children.get((entry.run.label, str(entry.run.seed)))
        if child is not None:
            return self._take_up(entry, child)
        ended = entry.end is not None and entry.end[0] == "FINISHED"
        origin = self._publisher.origin(run) if ended and self._kind == "run" else None
        tags = {
            **self._facts,
            "stage": run.stage,
            "label": run.label,
            "seed": str(run.seed),
            "kind": "reused" if origin else self._kind,
            "run_key": run.key,
            "parent_keys": run.parent or "none",
            "attempt": str(entry.attempt),
            "trainable": run.trainable,
            "dataset": run.dataset,
            "code_version": run.code,
            **({"reused_from": origin} if origin else {}),
        }
        known, self._children = self._children, None
        run_id = self.tracker.create_run(
            self.submission.experiment_id, run.name, tags, self.submission.run_id
        )
        self._describe(entry, run_id, origin is not None)
        known[run.label, str(run.seed)] = tracked = self.tracker.run(run_id)
        self._children = known
        return tracked

    def _take_up(self, entry: Entry, child: TrackedRun) -> TrackedRun:
        """Go on with the MLflow run that a Run has."""
        run = entry.run
        entry.logged = self.tracker.last_epoch(
            child.run_id, run.select if run.artifacts else "train/loss"
        )
        if entry.ancestry:  # up to there the store has another trial's epochs
            entry.logged = max(entry.logged, int(entry.ancestry[-1]["epoch"]))
        if not (child.status == "FINISHED" and entry.end):
            if child.tags.get("run_key") != run.key:
                self._log_config(run, child.run_id)
                self._tell_ancestry(entry, child.run_id)
            told = {"attempt": str(entry.attempt), "reason": "", "run_key": run.key}
            self.tracker.set_tags(child.run_id, told)
            child = replace(child, tags={**child.tags, **told})
            self._children[run.label, str(run.seed)] = child  # type: ignore[index]
        if entry.end is None:
            self.tracker.set_status(child.run_id, "RUNNING")
        if "opened" not in child.tags:  # whoever made it died over it
            self._describe(entry, child.run_id, child.tags.get("kind") == "reused")
        return child

    def _describe(self, entry: Entry, run_id: str, reused: bool) -> None:
        """What a Run is, once; the tag `opened` says that it is whole."""
        run = entry.run
        self.tracker.log_params(run_id, {**run.config, **entry.drawn, "seed": run.seed})
        self._log_config(run, run_id)
        self._tell_ancestry(entry, run_id)
        if not reused and self._kind == "run":  # a trial's has no model to be used
            self.store.run(run.key).set_origin({"run_id": run_id, "uri": self.tracker.uri})
        self.tracker.set_tags(run_id, {"opened": "true"})

    def _tell_ancestry(self, entry: Entry, run_id: str) -> None:
        """What has become of a trial of a population, and when."""
        if not entry.ancestry:
            return
        steps = [f"epoch {step['epoch']}: trial {step['trial']}" for step in entry.ancestry]
        self.tracker.set_tags(run_id, {"ancestry": "; ".join(steps)})
        self.tracker.log_text(run_id, json.dumps(list(entry.ancestry), indent=1), "ancestry.json")

    def _log_config(self, run: Run, run_id: str) -> None:
        text = yaml.safe_dump(dict(run.config), sort_keys=False)
        self.tracker.log_text(run_id, text, "config.yaml")

    def _send_maps(self, entry: Entry) -> None:
        """Pictures, once another process has drawn them: nothing waits for it. A trial has none:
        what it has kept is the Run's that goes on from it."""
        assert entry.tracked is not None and entry.end is not None
        run_id, folder = entry.tracked.run_id, self.store.run(entry.run.key).features()
        finished = entry.end[0] == "FINISHED" and self._kind == "run"
        if folder is None or not finished or "maps" in entry.tracked.tags:
            entry.done = True
        elif self._artist.has_drawn(folder):
            fault = self._artist.errors.get(folder)
            if fault is None:
                self.tracker.log_files(run_id, folder / MAPS)
            else:
                log.warning("%s: no maps and no diagram: %s", entry.run.name, fault)
            self.tracker.set_tags(run_id, {"maps": f"none: {fault}" if fault else "plots/"})
            entry.done = True


def _name(tags: Mapping[str, str]) -> tuple[str, str]:
    return tags["label"], tags["seed"]
