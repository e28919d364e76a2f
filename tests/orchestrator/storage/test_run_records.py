"""The folder of a Run: checkpoints are whole or absent, damaged ones are passed over, and an older
attempt cannot write."""

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from orchestrator.storage.checkpoints import TRAINING, WEIGHTS, Checkpoint
from orchestrator.storage.files import write_json
from orchestrator.storage.manifest import MANIFEST
from orchestrator.storage.run_records import RunFolder, StaleWriter, Store
from orchestrator.storage.trial_log import Trials
from tests.conftest import damage

EMPTY: dict[str, Any] = {"history": [], "facts": {}}  # what every report has
RESULT: dict[str, Any] = {**EMPTY, "best_epoch": 1, "test": {}}

KEY = "0123456789abcdef0123"


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return Store(tmp_path / "store").run(KEY)


def writing(content: bytes) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        path.write_bytes(content)

    return write


def save(run: RunFolder, epoch: int, attempt: int = 1, word: str = "first") -> Checkpoint:
    """A checkpoint whose files say which epoch and which writer they are of."""
    files = {name: writing(f"{name} {epoch} {word}".encode()) for name in (WEIGHTS, TRAINING)}
    return run.writer(attempt).save(epoch, files, {"word": word, "history": [epoch]})


def saved(run: RunFolder, *epochs: int) -> None:
    run.begin_attempt()
    for epoch in epochs:
        save(run, epoch)


def files(run: RunFolder) -> list[str]:
    """Everything under the key, hidden or not, but for the lock."""
    folder = run.path
    found = (str(path.relative_to(folder)) for path in folder.rglob("*"))
    return sorted(name for name in found if name != ".lock")


def test_what_is_saved_is_loaded(run: RunFolder) -> None:
    saved(run, 3)
    found = run.load(3)
    assert found is not None
    assert (found.epoch, found.info) == (3, {"word": "first", "history": [3]})
    assert found.weights.read_bytes() == b"weights.pt 3 first"
    assert found.training.read_bytes() == b"training.pt 3 first"
    assert run.newest() == found


def test_the_newest_epoch_counts_by_number_not_by_time_or_spelling(run: RunFolder) -> None:
    saved(run, 100_000, 99_999, 2)
    assert run.epochs() == [2, 99_999, 100_000]
    newest = run.newest()
    assert newest is not None
    assert newest.epoch == 100_000


def test_an_unknown_key_has_nothing(run: RunFolder) -> None:
    assert run.epochs() == []
    assert run.newest() is None
    assert run.result() is None
    assert run.best() is None
    assert run.progress() is None
    assert run.origin() is None
    assert run.attempt() == 0
    assert not run.path.parent.exists()


@pytest.mark.parametrize("how", ["missing", "cut", "zeroed", "empty", "one bit"])
@pytest.mark.parametrize("name", [WEIGHTS, TRAINING, MANIFEST])
def test_a_damaged_checkpoint_is_refused_by_name_and_the_one_before_is_taken(
    run: RunFolder, caplog: pytest.LogCaptureFixture, name: str, how: str
) -> None:
    saved(run, 1, 2)
    path = run.path / "epoch_00002"
    damage(path / name, how)
    newest = run.newest()
    assert newest is not None
    assert newest.epoch == 1
    said = [record.message for record in caplog.records]
    assert said[-1] == f"checkpoint {path}: {name} is missing or damaged"


def test_where_no_checkpoint_verifies_there_is_none(run: RunFolder) -> None:
    saved(run, 1, 2)
    for epoch in (1, 2):
        damage(run.path / f"epoch_0000{epoch}" / WEIGHTS, "cut")
    assert run.newest() is None


def test_a_writer_that_fails_leaves_nothing(run: RunFolder) -> None:
    saved(run, 1)
    before = files(run)

    def fail(path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        run.writer(1).save(2, {WEIGHTS: writing(b"whole"), TRAINING: fail}, {})
    assert files(run) == before


WRITE_AND_WAIT = """
import sys, time
from pathlib import Path
from orchestrator.storage.run_records import Store

def slow(path):
    with path.open("wb") as file:
        file.write(b"half")
        file.flush()
        print("half", flush=True)
        time.sleep(600)

root, key, place = sys.argv[1:]
quick = lambda path: path.write_bytes(b"whole")
names = ["weights.pt", "training.pt"]
run = Store(Path(root)).run(key)
writer = run.writer(run.begin_attempt())
writer.save(1, {name: quick for name in names}, {})
writer.save(2, {name: slow if name == place else quick for name in names}, {})
"""


def kill_while_writing(run: RunFolder, place: str) -> None:
    """A process that is killed with -9 when it has written half of a file of epoch 2."""
    command = [sys.executable, "-c", WRITE_AND_WAIT, str(run.path.parent), KEY, place]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        process.kill()
    assert (line, process.returncode) == (b"half\n", -9)


@pytest.mark.parametrize("place", [WEIGHTS, TRAINING])
def test_a_writer_killed_while_it_saves_leaves_no_half_checkpoint(
    run: RunFolder, place: str
) -> None:
    kill_while_writing(run, place)
    assert run.epochs() == [1]
    newest = run.newest()
    assert newest is not None
    assert newest.epoch == 1
    attempt = run.begin_attempt()
    assert attempt == 2
    assert run.load(save(run, 2, attempt).epoch) is not None


def test_what_a_killed_writer_left_goes_when_the_next_one_prunes(run: RunFolder) -> None:
    kill_while_writing(run, WEIGHTS)
    attempt = run.begin_attempt()
    for epoch in (2, 3):
        save(run, epoch, attempt)
    run.writer(attempt).prune(best=3)
    assert [path.name for path in run.path.glob(".epoch_*")] == []


def test_every_attempt_has_a_number_of_its_own(run: RunFolder) -> None:
    with ThreadPoolExecutor(8) as pool:
        numbers = list(pool.map(lambda _: run.begin_attempt(), range(32)))
    assert sorted(numbers) == list(range(1, 33))
    assert run.attempt() == 32


@pytest.mark.parametrize(
    "write",
    [
        lambda run: save(run, 1, word="stale"),
        lambda run: save(run, 3, word="stale"),
        lambda run: run.writer(1).prune(best=1, keep=1),
        lambda run: run.writer(1).finish(RESULT),
        lambda run: run.writer(1).shrink(1, 0.0),
        lambda run: run.writer(1).start_anew(),
    ],
    ids=["save again", "save", "prune", "finish", "shrink", "start anew"],
)
def test_an_older_attempt_can_change_nothing(
    run: RunFolder, write: Callable[[RunFolder], None]
) -> None:
    saved(run, 1, 2)
    assert run.begin_attempt() == 2
    before = files(run)
    with pytest.raises(StaleWriter, match=f"attempt 1 of {KEY}: attempt 2 has taken over"):
        write(run)
    assert files(run) == before
    first = run.load(1)
    assert first is not None
    assert first.info["word"] == "first"


def test_an_epoch_that_is_trained_again_replaces_the_old_one(run: RunFolder) -> None:
    saved(run, 1)
    save(run, 1, run.begin_attempt(), "second")
    found = run.load(1)
    assert found is not None
    assert found.weights.read_bytes() == b"weights.pt 1 second"


def test_pruning_keeps_the_newest_two_and_the_weights_of_the_best(run: RunFolder) -> None:
    saved(run, 1, 2, 3, 4, 5)
    run.writer(1).prune(best=2)
    assert run.epochs() == [2, 4, 5]
    best = run.load(2)
    assert best is not None
    assert best.weights.read_bytes() == b"weights.pt 2 first"
    assert not best.training.exists()
    assert all((run.path / f"epoch_0000{epoch}" / TRAINING).is_file() for epoch in (4, 5))


def test_a_best_checkpoint_among_the_newest_stays_whole(run: RunFolder) -> None:
    saved(run, 1, 2, 3)
    run.writer(1).prune(best=3, keep=1)
    assert run.epochs() == [3]
    newest = run.newest()
    assert newest is not None
    assert newest.training.is_file()


def test_training_does_not_go_on_from_a_checkpoint_without_its_optimizer(run: RunFolder) -> None:
    saved(run, 1, 2, 3)
    run.writer(1).prune(best=1, keep=1)
    damage(run.path / "epoch_00003" / WEIGHTS, "cut")
    assert run.epochs() == [1, 3]
    assert run.newest() is None


@pytest.mark.parametrize("key", ["", "..", "a/b", "../up", "/abs", "UPPER", "a b", "a\n", "k" * 65])
def test_a_key_never_leads_out_of_the_store(run: RunFolder, key: str) -> None:
    with pytest.raises(ValueError, match="not a key"):
        Store(run.path.parent).run(key)
    assert not run.path.parent.exists()


def test_a_result_stands_with_its_best_checkpoint(run: RunFolder) -> None:
    saved(run, 1, 2)
    result = {**RESULT, "test": {"test/loss": 0.5}}
    assert run.result() is None
    run.writer(1).finish(result)
    assert run.result() == {"attempt": 1, **result}
    best = run.best()
    assert best is not None
    assert best.epoch == 1
    shutil.rmtree(best.path)
    assert run.result() is None
    assert run.best() is None


@pytest.mark.parametrize("how", ["missing", "cut", "empty"])
def test_a_result_does_not_stand_when_its_weights_are_gone(run: RunFolder, how: str) -> None:
    saved(run, 1)
    run.writer(1).finish(RESULT)
    damage(run.path / "epoch_00001" / WEIGHTS, how)
    assert run.best() is None
    assert run.result() is None  # else it stays `done`, and its children fail for ever


def test_progress_is_what_was_reported_last(run: RunFolder) -> None:
    run.begin_attempt()
    for epoch in (1, 2):
        run.writer(1).report({**EMPTY, "done": epoch, "loss": 0.5})
    progress = run.progress() or {}
    assert (progress["attempt"], progress["done"], progress["loss"]) == (1, 2, 0.5)
    assert (progress["host"], progress["pid"]) == (platform.node(), os.getpid())
    damage(run.path / "progress.json", "cut")
    assert run.progress() is None


def test_the_origin_of_a_run_is_kept(run: RunFolder) -> None:
    run.begin_attempt()
    run.set_origin({"run_id": "r1", "uri": "http://127.0.0.1:5000"})
    assert run.origin() == {"run_id": "r1", "uri": "http://127.0.0.1:5000"}


def test_what_is_forgotten_is_trained_anew(run: RunFolder) -> None:
    attempt = run.begin_attempt()
    save(run, 1, attempt)
    run.writer(attempt).finish(RESULT)
    assert run.result() is not None
    run.forget()
    assert run.result() is None and run.epochs() == [] and run.attempt() == attempt


def test_the_best_checkpoint_has_a_backup_copy_that_is_loaded_in_its_place(
    run: RunFolder, caplog: pytest.LogCaptureFixture
) -> None:
    saved(run, 1, 2, 3)
    run.writer(1).back_up(2)
    found = run.load(2)
    assert found is not None and found.path.name == "epoch_00002" and caplog.records == []
    damage(found.weights, "zeroed")
    spare = run.load(2)
    assert spare is not None and spare.path.name == "spare_00002"
    assert spare.weights.read_bytes() == b"weights.pt 2 first" and spare.info == found.info
    assert TRAINING not in spare.files
    assert "epoch_00002: weights.pt is missing or damaged" in caplog.text
    shutil.rmtree(found.path)
    assert run.load(2) == spare


def test_only_the_newest_backup_copy_stays_and_a_damaged_one_is_written_again(
    run: RunFolder,
) -> None:
    saved(run, 1, 2, 3)
    run.writer(1).back_up(1)
    run.writer(1).back_up(2)
    names = [path.name for path in run.path.glob("spare_*")]
    assert names == ["spare_00002"]
    (run.path / "spare_00002" / WEIGHTS).unlink()
    run.writer(1).back_up(2)
    assert (run.path / "spare_00002" / WEIGHTS).read_bytes() == b"weights.pt 2 first"


def test_a_result_stands_on_the_backup_copy_too(run: RunFolder) -> None:
    saved(run, 1)
    run.writer(1).back_up(1)
    run.writer(1).finish(RESULT)
    shutil.rmtree(run.path / "epoch_00001")
    assert run.result() is not None and run.best() is not None
    shutil.rmtree(run.path / "spare_00001")
    assert run.result() is None


LONG = 600.0  # seconds of training that are worth a second copy


@pytest.mark.parametrize(("seconds", "copies"), [(LONG, ["spare_00002"]), (LONG - 1, [])])
def test_a_finished_run_keeps_weights_alone_and_a_second_copy_where_it_trained_for_long(
    run: RunFolder, seconds: float, copies: list[str]
) -> None:
    saved(run, 1, 2, 3, 4)
    run.writer(1).back_up(2)
    run.writer(1).finish({**RESULT, "best_epoch": 2})
    run.writer(1).shrink(2, seconds)
    assert run.epochs() == [2, 4] and run.result() is not None
    assert [path.name for path in run.path.glob("spare_*")] == copies
    assert list(run.path.rglob(TRAINING)) == []
    for epoch in (2, 4):
        found = run.load(epoch)
        assert found is not None and found.path.name == f"epoch_0000{epoch}"
    damage(run.path / "epoch_00002" / WEIGHTS, "zeroed")
    assert (run.result() is not None) == bool(copies)


def test_a_second_copy_stays_where_the_first_is_damaged(run: RunFolder) -> None:
    saved(run, 1, 2)
    run.writer(1).back_up(1)
    damage(run.path / "epoch_00001" / WEIGHTS, "zeroed")
    run.writer(1).finish(RESULT)
    run.writer(1).shrink(1, 1.0)
    best = run.best()
    assert best is not None and best.path.name == "spare_00001"


@pytest.mark.parametrize("how", ["missing", "cut", "zeroed", "empty"])
@pytest.mark.parametrize("name", ["done.json", "done_copy.json"])
def test_a_result_stands_when_one_of_its_files_is_damaged(
    run: RunFolder, name: str, how: str
) -> None:
    saved(run, 1)
    run.writer(1).finish(RESULT)
    damage(run.path / name, how)
    assert run.result() == {"attempt": 1, **RESULT}


def test_an_attempt_that_begins_anew_finds_nothing_of_the_one_before(run: RunFolder) -> None:
    saved(run, 1, 2)
    run.writer(1).finish(RESULT)
    run.writer(run.begin_attempt()).start_anew()
    assert run.epochs() == [] and run.result() is None and run.attempt() == 2


@pytest.mark.parametrize("how", ["missing", "cut", "zeroed", "empty"])
@pytest.mark.parametrize("trace", ["checkpoint", "progress", "log", "end"])
def test_an_attempts_number_is_never_given_twice(run: RunFolder, trace: str, how: str) -> None:
    run.begin_attempt()
    assert run.begin_attempt() == 2
    if trace == "checkpoint":
        save(run, 1, 2)
    elif trace == "progress":
        run.writer(2).report({**EMPTY, "done": 0.0})
    elif trace == "log":
        run.log_file(2, 0).write_text("hello")
    else:
        run.writer(2).end("KILLED", "", "submission")
    damage(run.path / "attempt", how)
    assert run.attempt() == 2
    assert run.begin_attempt() == 3


def test_an_older_attempt_cannot_report_progress(run: RunFolder) -> None:
    run.begin_attempt()
    run.begin_attempt()
    with pytest.raises(StaleWriter):
        run.writer(1).report({**EMPTY, "done": 1.0})
    assert run.progress() is None


OWN = """
import sys, time
from pathlib import Path
from orchestrator.storage.run_records import Store
owned = Store(Path(sys.argv[1])).run(sys.argv[2]).acquire("study other")
print("owned" if owned else "not", flush=True)
time.sleep(600)
"""


def test_a_key_has_one_owner_until_that_process_dies(run: RunFolder) -> None:
    assert run.owner() is None
    command = [sys.executable, "-c", OWN, str(run.path.parent), KEY]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"owned\n"
        assert run.acquire("study mine") is None
        assert run.owner() == "study other"
        process.kill()
    assert run.owner() is None
    owned = run.acquire("study mine")
    assert owned is not None
    assert run.acquire("the same study, another label") is None
    owned.close()
    assert run.owner() is None


def test_how_an_attempt_ended_is_kept_for_its_job_alone(run: RunFolder) -> None:
    attempt = run.begin_attempt()
    run.writer(attempt).end("FAILED", "too hot", "run-1")
    assert run.ended("run-1") == ("FAILED", "too hot")
    assert run.ended("run-2") is None
    run.begin_attempt()
    assert run.ended("run-1") is None


def test_logs_are_listed_by_attempt_and_rank(run: RunFolder) -> None:
    for attempt, rank in ((10, 0), (2, 1), (2, 0)):
        run.log_file(attempt, rank).touch()
    (run.path / "logs" / "notes.log").touch()
    assert list(run.logs()) == [(2, 0), (2, 1), (10, 0)]


def test_progress_that_an_earlier_version_wrote_is_read(run: RunFolder) -> None:
    attempt = run.begin_attempt()
    run.writer(attempt).report({**EMPTY, "epoch": 2, "part": 0.25, "epochs": 4, "loss": 0.5})
    progress = run.progress() or {}
    assert (progress["done"], progress["total"], progress["unit"]) == (2.25, 4, "epochs")
    assert progress["attempt"] == attempt and "epoch" not in progress


def test_how_an_attempt_ended_is_read_as_earlier_versions_wrote_it(run: RunFolder) -> None:
    note = {"attempt": run.begin_attempt(), "state": "FAILED", "reason": "too hot"}
    write_json(run.path / "ended.json", {**note, "submission": "run-1"})
    assert run.ended("run-1") == ("FAILED", "too hot")
    assert run.ended("job-1") is None


_WRONG = ["", "[]", "{}", "null", '{"attempt": "1"}', '{"attempt": null, "best_epoch": []}',
          '{"best_epoch": 1, "history": 5, "test": {}, "facts": {}}',
          '{"attempt": 1, "time": "noon", "history": [], "facts": {}}',
          '{"attempt": 1, "state": 5, "reason": []}', '{"run_id": 5}', "[" * 5000]  # fmt: skip


@pytest.mark.parametrize("name", ["attempt", "progress.json", "done.json", "ended.json",
                                  "origin.json"])  # fmt: skip
@pytest.mark.parametrize("text", _WRONG)
def test_a_record_of_wrong_types_counts_as_none(tmp_path: Path, name: str, text: str) -> None:
    store = Store(tmp_path)
    run = store.run("a" * 20)
    attempt = run.begin_attempt()
    (run.path / name).write_text(text, "utf-8")
    found = (run.progress(), run.result(), run.ended("job"), run.origin(), run.history())
    assert found == (None, None, None, None, [])
    assert run.attempt() in (0, attempt)
    assert run.begin_attempt() >= 1


@pytest.mark.parametrize(
    "text", ["[]", '{"trials": 5}', '{"trials": [5]}', '{"trials": [{"index": "a"}]}',
             '{"seconds": []}', '{"trials": [{"index": 0, "values": 5, "key": "k", "label": ""}]}']
)  # fmt: skip
def test_a_trial_log_of_wrong_types_counts_as_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "trials.json").write_text(text, "utf-8")
    trials = Trials(tmp_path)
    assert (trials.all(), trials.seconds, trials.most) == ([], 0.0, None)


def test_a_run_that_goes_on_with_other_numerics_says_so_for_ever(run: RunFolder) -> None:
    """Three attempts: the second on another device, the third as the second."""
    cpu, gpu = {"device": "cpu", "torch": "2.14.1"}, {"device": "A100", "torch": "2.14.1"}
    said = "from epoch 2 device cpu → A100"
    history = [{"epoch": 1, "train/loss": 0.5}]
    for facts, expected in ((cpu, None), (gpu, said), (gpu, said)):
        writer = run.writer(run.begin_attempt())
        for _ in range(2):
            writer.report({"done": 1, "total": 3, "history": history, "facts": facts})
        progress = run.progress()
        assert progress is not None and progress["facts"].get("resumed_with") == expected
    writer.save(1, {"weights.pt": lambda path: path.write_bytes(b"1")}, {"history": history})
    facts = {**gpu, "warning": "collapsed"}
    writer.finish({"best_epoch": 1, "history": history, "test": {}, "facts": facts})
    result = run.result()
    assert result is not None
    assert result["facts"]["warning"] == f"collapsed; resumed with other numerics: {said}"


def test_an_attempt_that_begins_anew_has_not_changed(run: RunFolder) -> None:
    """The first attempt has ended before its first epoch: nothing of it is in the second."""
    for device in ("cpu", "A100"):
        writer = run.writer(run.begin_attempt())
        writer.report({"done": 0, "total": 3, "history": [], "facts": {"device": device}})
    progress = run.progress()
    assert progress is not None and progress["facts"] == {"device": "A100"}
