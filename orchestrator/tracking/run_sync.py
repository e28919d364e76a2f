"""Send one Run to MLflow, step by step, from what the store holds of it."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any

import yaml

from orchestrator.meters.usage_records import CPU, new_usage
from orchestrator.pages.inputs import dataset_inputs
from orchestrator.planning.run import Run
from orchestrator.reporting.comparison import State
from orchestrator.storage.run_records import RunFolder, Store
from orchestrator.tracking.mlflow_client import TrackedRun, TrackingError
from orchestrator.tracking.mlflow_writer import Tracker
from orchestrator.tracking.publisher import Epoch, Publisher
from orchestrator.tracking.tags import Kind, Tag, current_names, identity_of
from trainables.metrics import LOSS

Identity = tuple[str, str]  # as `identity_of` returns it


class Phase(Enum):
    """Names how far a Run is on its way to MLflow."""

    OPENING = "opening"  # its MLflow run is not known yet
    STREAMING = "streaming"  # its epochs and its progress are sent while it trains
    CLOSING = "closing"  # it has ended: figures, models, logs and its state are sent
    AWAITING_FIGURES = "awaiting figures"  # all is sent but what another process still draws
    DONE = "done"


@dataclass(frozen=True)
class RunEnd:
    """Says how a Run ended. state: FINISHED, FAILED or KILLED; outcome: of a trial that is
    FINISHED, `finished` or `stopped_early`."""

    state: State
    reason: str = ""
    outcome: str = field(default="", compare=False)


class Children:
    """The MLflow runs below a submission or a search, each under its identity (see
    `identity_of`)."""

    def __init__(self, tracker: Tracker, parent: TrackedRun) -> None:
        self._tracker, self._parent = tracker, parent
        self._known: dict[Identity, TrackedRun] | None = None  # None: to be read

    def find(self, identity: Identity) -> TrackedRun | None:
        """Return the MLflow run of a Run, if there is one."""
        return self._read().get(identity)

    def update(self, tracked: TrackedRun) -> None:
        """Remember what an MLflow run is now."""
        self._read()[identity_of(tracked.tags)] = tracked

    def create(
        self, name: str, tags: Mapping[str, str], describe: Callable[[str], None]
    ) -> TrackedRun:
        """Create the MLflow run of a Run. describe: logs what it is, given the new run's id.

        All is read again after an error: whether a call without an answer was carried out is not
        known.
        """
        known, self._known = self._read(), None
        run_id = self._tracker.writer.create_run(
            self._parent.experiment_id, name, tags, self._parent.run_id
        )
        describe(run_id)
        known[identity_of(tags)] = tracked = self._tracker.reader.run(run_id)
        self._known = known
        return tracked

    def _read(self) -> dict[tuple[str, str], TrackedRun]:
        if self._known is None:
            children = self._tracker.reader.children(self._parent)
            self._known = {identity_of(child.tags): child for child in children}
        return self._known


class DataFacts:
    """Tells what the data sets of a submission hold, from its `data.json`, read when needed."""

    def __init__(self, tracker: Tracker, submission: TrackedRun) -> None:
        self._tracker, self._submission = tracker, submission
        self._known: dict[str, Any] | None = None

    def log_inputs(self, run_id: str, name: str, kind: Kind) -> None:
        """Log which data set a Run reads; of a trial nothing. name: what the study calls it."""
        if kind == Kind.RUN and (inputs := self.inputs(name)):
            self._tracker.writer.log_inputs(run_id, inputs)

    def inputs(self, name: str) -> list[dict[str, Any]]:
        """Return what MLflow lists with a Run that reads a data set; nothing where an earlier
        version has not stored it. name: what the study calls it."""
        if self._known is None:
            try:
                text = self._tracker.reader.text(self._submission.run_id, "data.json")
                self._known = dict(json.loads(text))
            except TrackingError as error:
                if not error.answered:
                    raise
                self._known = {}
        facts = self._known.get(name)
        return dataset_inputs(name, facts) if facts else []


@dataclass(frozen=True)
class SyncContext:
    """Holds what all Runs of one submission, or all trials of one search, are sent from and
    with."""

    tracker: Tracker
    store: Store
    facts: Mapping[str, str]  # tags that every Run carries
    kind: Kind  # RUN or TRIAL
    children: Children
    publisher: Publisher
    data: "DataFacts"


class RunSync:
    """One Run on its way to MLflow."""

    def __init__(
        self,
        context: SyncContext,
        run: Run,
        end: RunEnd | None = None,
        upstream_values: Mapping[str, Any] | None = None,
        lineage: Sequence[Mapping[str, Any]] = (),
        first_key: str = "",
    ) -> None:
        """upstream_values: parameters that a search chose for what the Run starts from. lineage: of
        a trial of a population, whose weights it went on with: epoch, trial, values. first_key: the
        key that such a trial had at first."""
        self.run, self.end, self._first_key = run, end, first_key
        self.phase = Phase.OPENING
        self.refusals = 0  # how often in a row MLflow has refused a call
        self._context, self._tracker = context, context.tracker
        self._folder = context.store.run(run.key)
        self._upstream_values, self._lineage = upstream_values or {}, lineage
        self._attempt = self._folder.attempt()
        self._tracked: TrackedRun | None = None
        self._logged_epochs = self._logged_usage = 0
        self._stamps: dict[int, int] = {}  # see `MlflowWriter.log_epochs`
        self._progress_time = 0.0  # of the progress that MLflow has

    @property
    def is_closed(self) -> bool:
        """Return whether all is sent but for figures that are still drawn."""
        return self.phase in (Phase.AWAITING_FIGURES, Phase.DONE)

    def advance(self) -> None:
        """Send what MLflow lacks. Raises TrackingError; what was sent is not sent again then."""
        end = self.end  # before the store is read: a Run that has ended has written everything
        if self._tracked is None:
            self._tracked = self._open(end)
            sent = self._was_sent(self._tracked, end)
            self.phase = Phase.AWAITING_FIGURES if sent else Phase.STREAMING
        tracked = self._tracked
        if not self.is_closed:
            result, history = self._stream(tracked, end)
            if end is not None:
                self.phase = Phase.CLOSING
                self._close(tracked, end, result, history)
                self.phase = Phase.AWAITING_FIGURES
        if self.phase is Phase.AWAITING_FIGURES:
            # a trial has none: its records go to the Run that continues it
            wanted = end and end.state == State.FINISHED and self._context.kind == Kind.RUN
            if not wanted or self._context.publisher.figures(self.run, tracked):
                self.phase = Phase.DONE

    # --- opening -------------------------------------------------------------------------------

    def _open(self, end: RunEnd | None) -> TrackedRun:
        """Find the Run's MLflow run among the submission's, or create it."""
        run, context = self.run, self._context
        child = context.children.find(identity(run, self._first_key))
        if child is not None:
            return self._resume(child, end)
        finished = end is not None and end.state == State.FINISHED and context.kind == Kind.RUN
        origin = context.publisher.origin(run) if finished else None
        tags: dict[str, str] = {
            **context.facts,
            Tag.STAGE: run.stage,
            Tag.LABEL: run.label,
            Tag.SEED: str(run.seed),
            Tag.KIND: Kind.REUSED if origin else context.kind,
            Tag.RUN_KEY: run.key,
            **_start_of(run),
            Tag.ATTEMPT: str(self._attempt),
            Tag.TRAINABLE: run.trainable,
            Tag.DATASET: run.dataset,
            Tag.CODE_VERSION: run.code,
        }
        if self._first_key:
            tags[Tag.FIRST_KEY] = self._first_key
        if origin:
            tags[Tag.REUSED_FROM] = origin
        reused = origin is not None
        return context.children.create(
            run.name, tags, lambda run_id: self._describe(run_id, reused)
        )

    def _resume(self, child: TrackedRun, end: RunEnd | None) -> TrackedRun:
        """Go on with the MLflow run that the Run has."""
        run, writer = self.run, self._tracker.writer
        metric = run.select if run.artifacts else LOSS
        logged = self._tracker.reader.stamps(child.run_id, metric)
        self._logged_epochs, self._stamps = max(logged, default=0), {**self._stamps, **logged}
        if self._lineage:  # the store has another trial's epochs up to there
            self._logged_epochs = max(self._logged_epochs, int(self._lineage[-1]["epoch"]))
        sent = max(self._tracker.reader.stamps(child.run_id, CPU), default=0)
        self._logged_usage = max(sent, self._logged_epochs if self._lineage else 0)
        if not (child.status == State.FINISHED and end):
            if child.tags.get(Tag.RUN_KEY) != run.key:
                self._log_config(child.run_id)
                self._log_lineage(child.run_id)
            tags: dict[str, str] = {
                Tag.ATTEMPT: str(self._attempt),
                Tag.REASON: "",
                Tag.RUN_KEY: run.key,
            }
            writer.set_tags(child.run_id, tags)
            child = replace(child, tags={**child.tags, **tags})
            self._context.children.update(child)
        if end is None:
            writer.set_status(child.run_id, State.RUNNING)
        if Tag.DESCRIBED not in child.tags:  # the process that created it died over it
            self._describe(child.run_id, child.tags.get(Tag.KIND) == Kind.REUSED)
        return child

    def _was_sent(self, tracked: TrackedRun, end: RunEnd | None) -> bool:
        """Return whether an earlier submission has sent all of a finished Run."""
        outcome = end.outcome if end else ""
        finished = end is not None and end.state == tracked.status == State.FINISHED
        return finished and outcome == tracked.tags.get(Tag.OUTCOME, "")

    def _describe(self, run_id: str, reused: bool) -> None:
        """Log what the Run is; the tag `described` is set last: it says that nothing is missing."""
        run, context = self.run, self._context
        params = {**run.config, **self._upstream_values, "seed": run.seed}
        self._tracker.writer.log_params(run_id, params)
        context.data.log_inputs(run_id, str(run.config["dataset"]), context.kind)
        self._log_config(run_id)
        self._log_lineage(run_id)
        if not reused and context.kind == Kind.RUN:  # no other Run uses a trial's model
            self._folder.set_origin({"run_id": run_id, "uri": self._tracker.uri})
        self._tracker.writer.set_tags(run_id, {Tag.DESCRIBED: "true"})

    def _log_lineage(self, run_id: str) -> None:
        if self._lineage:
            steps = [f"epoch {step['epoch']}: trial {step['trial']}" for step in self._lineage]
            text = json.dumps(list(self._lineage), indent=1)
            self._tracker.writer.set_tags(run_id, {Tag.LINEAGE: "; ".join(steps)})
            self._tracker.writer.log_text(run_id, text, "lineage.json")

    def _log_config(self, run_id: str) -> None:
        text = yaml.safe_dump(dict(self.run.config), sort_keys=False)
        self._tracker.writer.log_text(run_id, text, "config.yaml")

    # --- streaming -----------------------------------------------------------------------------

    def _stream(
        self, tracked: TrackedRun, end: RunEnd | None
    ) -> tuple[dict[str, Any] | None, Sequence[Epoch]]:
        """Send epochs and progress. Returns the Run's result, if it has one, and its epochs."""
        progress = self._folder.progress()
        if progress and progress["attempt"] < self._attempt:
            progress = None
        result, history = _recorded(self._folder, self._context.kind, end, progress)
        new = [epoch for epoch in history if epoch["epoch"] > self._logged_epochs]
        last = int(new[-1]["epoch"]) if new else self._logged_epochs
        usage = new_usage(self._folder, self._logged_usage, last, self._stamps)
        if new or usage:
            self._tracker.writer.log_epochs(tracked.run_id, [*new, *usage], self._stamps)
            self._logged_epochs = last
        if usage:
            self._logged_usage = int(usage[-1]["epoch"])
        if progress and not result:
            self._send_progress(tracked.run_id, progress)
            self._context.publisher.pictures(self.run, tracked)
        return result, history

    def _send_progress(self, run_id: str, progress: Mapping[str, Any]) -> None:
        """Send how far the running epoch is, as a tag that `status` reads."""
        if progress["time"] == self._progress_time:
            return
        shown = {key: value for key, value in progress.items() if key != "history"}
        warning = current_names(shown["facts"]).get(Tag.WARNING, "")
        tags: dict[str, str] = {
            Tag.PROGRESS: json.dumps(shown),
            Tag.ATTEMPT: str(progress["attempt"]),
            Tag.WARNING: warning,
        }
        self._tracker.writer.set_tags(run_id, tags)
        self._progress_time = progress["time"]

    # --- closing -------------------------------------------------------------------------------

    def _close(
        self,
        tracked: TrackedRun,
        end: RunEnd,
        result: Mapping[str, Any] | None,
        history: Sequence[Epoch],
    ) -> None:
        """Send what an ended Run leaves, then its state."""
        publisher, writer = self._context.publisher, self._tracker.writer
        if result:
            publisher.result(self.run, tracked, result, self._stamps)
        elif history and end.outcome:
            publisher.trial(self.run, tracked, history, end.outcome)
        publisher.logs(self.run, tracked)
        if end.reason:
            writer.set_tags(tracked.run_id, {Tag.REASON: end.reason})
        writer.set_status(tracked.run_id, end.state)


def _recorded(
    folder: RunFolder, kind: Kind, end: RunEnd | None, progress: Mapping[str, Any] | None
) -> tuple[dict[str, Any] | None, Sequence[Epoch]]:
    """Read from the store a Run's result and its epochs so far."""
    if end is not None and kind == Kind.TRIAL:
        return None, folder.history()
    finished = end is not None and end.state == State.FINISHED
    result = folder.result() if finished else None
    return result, result["history"] if result else progress["history"] if progress else []


def _start_of(run: Run) -> dict[str, str]:
    """Return the tags that say what a Run starts from: in words, and as a key."""
    words = run.parent_label or str(run.config.get("weights") or "random weights")
    return {Tag.STARTS_FROM: words, Tag.PARENT_KEYS: run.parent or "none"}


def identity(run: Run, first_key: str = "") -> Identity:
    """Return the identity of a Run, as `identity_of` reads it in MLflow. first_key: as in
    `RunSync`."""
    return first_key or run.key, run.label
