"""Why an attempt ended: what the Run did itself, who died and of what, or who lost whom."""

import pickle
from pathlib import Path

import pytest
import ray.exceptions

from orchestrator.execution.failures import (
    Death,
    Ending,
    Outcome,
    explain,
    outcome_of,
    readable_errors,
)
from orchestrator.execution.task import Task
from orchestrator.storage.run_log import STALLED, place_in_words, place_of
from orchestrator.storage.run_records import StaleWriter, Store
from trainables.engine.checkpoints import Unrecoverable

KEY = "0123456789abcdef0123"


@pytest.fixture
def task(tmp_path: Path) -> Task:
    return Task(
        key=KEY, attempt=1, label="late", trainable="classify", config={}, seed=0,
        vary=("init", "order"), table="", store=str(tmp_path), parent=None, parent_label=None,
    )  # fmt: skip


def died(message: str = "") -> ray.exceptions.ActorDiedError:
    error = ray.exceptions.ActorDiedError()
    error.error_msg = message
    error.args = (message,)
    return error


def test_a_fault_of_the_run_counts_before_the_death_of_another_rank(task):
    outcome = explain({0: died(), 1: Unrecoverable("the loss is not finite")}, task, 0)
    assert (outcome.state, outcome.reason) == (Ending.FAILED, "the loss is not finite")


def test_a_rank_that_lost_a_dead_one_is_not_the_cause(task):
    lost = RuntimeError("[gloo/transport/tcp/pair.cc:534] Connection closed by peer")
    assert explain({0: lost, 1: died()}, task, 0).state is Ending.KILLED
    assert "worker 1" in explain({0: lost, 1: died()}, task, 0).reason
    alone = explain({0: lost}, task, 0)
    assert alone.state is Ending.KILLED and "lost contact" in alone.reason
    assert alone.death is Death.NETWORK


def test_an_error_of_the_code_is_a_failure_with_its_name(task):
    outcome = explain({1: KeyError("missing")}, task, 0)
    assert (outcome.state, outcome.reason) == (Ending.FAILED, "KeyError on rank 1: 'missing'")


def test_an_overtaken_writer_is_neither_failed_nor_killed(task):
    assert explain({0: StaleWriter("attempt 2 has taken over")}, task, 0).state is Ending.SUPERSEDED


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ("killed because the node was running low on memory", "out of memory"),
        ("The actor died because its node has died.", "lost with its node"),
        ("", "was killed from outside (SIGKILL), or crashed without a word"),
    ],
)
def test_a_death_is_told_with_what_is_known_of_it(task, message, reason):
    outcome = explain({0: died(message)}, task, 0)
    assert outcome.state is Ending.KILLED and reason in outcome.reason


LOW = """3 worker(s) were killed due to the node running low on memory.
Memory on the node (IP: 192.0.2.2, ID: accf61) was 22.25GB used / 23.54GB limit (0.945018)
OOM kill reason: Memory usage 24033812480B exceeded threshold of 24012257280B
"""  # as Ray 2.60 says it


def test_how_full_the_node_was_is_told_in_a_few_words(task):
    outcome = explain({0: ray.exceptions.OutOfMemoryError(LOW)}, task, 0)
    assert outcome == Outcome(
        Ending.KILLED,
        "worker 0 was killed: out of memory (22.25 of 23.54 GB of its node were used); take a "
        "smaller `batch_size`, or train fewer Runs at once (`cpus_per_worker`)",
        Death.MEMORY,
    )


KILLED = """The actor died unexpectedly before finishing this task.
\tclass_name: study/only/0
\tpid: 8679
The actor is dead because its worker process has died. Worker exit type: SYSTEM_ERROR Worker exit \
detail: Worker unexpectedly exits with a connection error code 2. End of file. Some common causes \
include: (1) the process was killed by the OOM killer due to high memory usage, (2) ray stop \
--force was called, or (3) the worker is crashed unexpectedly due to SIGSEGV or another \
unexpected error."""  # as Ray 2.60 says it after `kill -9`


def test_what_ray_guesses_of_every_death_is_not_told(task):
    outcome = explain({0: died(KILLED)}, task, 0)
    assert outcome.death is Death.CRASH
    assert outcome.reason == (
        "worker 0 was killed from outside (SIGKILL), or crashed without a word"
    )
    controller = outcome_of(ray.exceptions.RayActorError(error_msg=KILLED), task, 0)
    assert controller.death is Death.CRASH
    assert "out of memory" not in controller.reason


def test_a_crash_is_told_with_its_signal_from_the_log(task):
    log = Store(Path(task.store)).run(KEY).log_file(1, 0)
    log.write_text("INFO epoch 1\nFatal Python error: Segmentation fault\n\nThread 0x1:\n")
    assert explain({0: died()}, task, 0).reason == (
        "worker 0 crashed: Segmentation fault (see its log)"
    )


def test_a_process_that_ended_itself_is_told_with_its_reason(task):
    log = Store(Path(task.store)).run(KEY).log_file(1, 0)
    log.write_text(f"INFO epoch 1\n{STALLED}no progress for 120 minutes\n")
    outcome = explain({0: died()}, task, 0)
    assert outcome.reason == (
        "worker 0 ended itself: no progress for 120 minutes (its log says where it hung)"
    )
    assert (outcome.state, outcome.death) == (Ending.KILLED, Death.CRASH)


def test_the_place_of_a_rank_is_read_from_the_begin_of_its_log(tmp_path):
    log = tmp_path / "attempt_1_rank_0.log"
    assert place_of(log) is None
    log.write_text("2026-12-01 INFO late seed 0, attempt 1\n")
    assert place_of(log) is None
    with log.open("a") as file:
        file.write(f"2026-12-01 INFO {place_in_words('gpu-3', 'ab12')}\n" + "epoch\n" * 100_000)
    assert place_of(log) == ("gpu-3", "ab12")


def test_the_kernel_is_named_when_it_killed_something_on_this_machine(task, monkeypatch):
    store = Store(Path(task.store))
    store.run(KEY).begin_attempt()
    monkeypatch.setattr("orchestrator.execution.failures.kernel_kills", lambda: 8)
    store.run(KEY).writer(1).report({"host": "elsewhere", "history": [], "facts": {}})
    assert "from outside" in explain({0: died()}, task, 7).reason
    monkeypatch.setattr("platform.node", lambda: "elsewhere")
    assert "by the kernel: out of memory" in explain({0: died()}, task, 7).reason


def test_an_own_fault_of_the_lowest_rank_counts(task):
    failures = {1: StaleWriter("attempt 2 has taken over"), 0: Unrecoverable("too hot")}
    assert explain(failures, task, 0).state is Ending.FAILED
    failures = {0: StaleWriter("attempt 2 has taken over"), 1: Unrecoverable("too hot")}
    assert explain(failures, task, 0).state is Ending.SUPERSEDED


class WorkerHealthCheckTimeoutError(Exception):
    """Ray's own is not public: it is known by its name."""


class WorkerGroupStartupTimeoutError(Exception):
    """As above."""


@pytest.mark.parametrize(
    ("error", "words", "kind"),
    [
        (ray.exceptions.WorkerCrashedError(), "was killed from outside", Death.CRASH),
        (
            ray.exceptions.OutOfMemoryError("too much"),
            "was killed: out of memory (too much); take a smaller `batch_size`",
            Death.MEMORY,
        ),
        (ray.exceptions.NodeDiedError("gone"), "was lost with its node", Death.NODE),
        (WorkerHealthCheckTimeoutError("silent"), "was killed from outside", Death.CRASH),
    ],
)
def test_every_kind_of_death_may_be_tried_again(task, error, words, kind):
    outcome = explain({3: error}, task, 10**9)
    assert outcome.state is Ending.KILLED
    assert outcome.reason.startswith(f"worker 3 {words}")
    assert outcome.death is kind


def test_what_fit_raises_is_an_outcome(task):
    group = ray.train.WorkerGroupError("ranks failed", {0: Unrecoverable("too hot")})
    assert outcome_of(group, task, 0).state is Ending.FAILED
    late = ray.train.ControllerError(WorkerGroupStartupTimeoutError("no room"))
    assert outcome_of(late, task, 0).state is Ending.UNPLACED
    outcome = outcome_of(ray.train.ControllerError(ValueError("bad\n state")), task, 0)
    assert (outcome.state, outcome.reason) == (Ending.KILLED, "bad state")
    outcome = outcome_of(ray.exceptions.RayError("gone"), task, 0)
    assert (outcome.state, outcome.reason) == (Ending.KILLED, "its controller died: gone")


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ray.exceptions.OutOfMemoryError("Task was killed"), "its controller was killed: out of"),
        (ray.exceptions.ActorDiedError(), "its controller died: "),
        (
            ray.exceptions.WorkerCrashedError(),
            "its controller died: ",
        ),
    ],
)
def test_the_death_of_a_controller_is_told_with_its_cause(task, error, reason):
    outcome = outcome_of(error, task, 0)
    assert outcome.state is Ending.KILLED and outcome.reason.startswith(reason)


def test_a_controller_that_ray_s_monitor_has_killed_ran_out_of_memory(task):
    text = "Worker exit type: NODE_OUT_OF_MEMORY. The node was running low on memory"
    outcome = outcome_of(ray.exceptions.RayTaskError("f", text, ValueError(text)), task, 0)
    assert "out of memory" in outcome.reason


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("The server socket has failed to listen: EADDRINUSE, port: 41541", Death.NETWORK),
        ("The actor died because its node has died. Node Id: 4f1c", Death.NODE),
        ("The process of the actor's node died", Death.CRASH),
        ("something else", Death.CRASH),
    ],
)
def test_what_ends_a_controller_counts_as_its_own_kind_of_death(task, text, kind):
    error = ray.train.ControllerError(RuntimeError(text))
    assert outcome_of(error, task, 0).death is kind


class OwnForm(Exception):
    """As those of some libraries: it cannot be made anew from its arguments."""

    def __init__(self, code: int, words: str) -> None:
        super().__init__(f"{words} ({code})")


def test_an_exception_that_no_other_process_can_read_is_told_by_its_words():
    with pytest.raises(RuntimeError) as told, readable_errors():
        raise OwnForm(7, "no such region")
    sent = pickle.loads(pickle.dumps(told.value))
    assert str(sent) == "OwnForm: no such region (7)"


@pytest.mark.parametrize("error", [ValueError("a wrong rate"), Unrecoverable("not finite")])
def test_any_other_exception_stays_what_it_is(error):
    with pytest.raises(type(error)) as told, readable_errors():
        raise error
    assert told.value is error
