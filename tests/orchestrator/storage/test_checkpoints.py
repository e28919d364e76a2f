"""A checkpoint is there whole or not at all, what is damaged is passed over, old writers stop."""

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from orchestrator.storage.checkpoints import TRAINING, WEIGHTS, Checkpoint, StaleWriter, Store
from orchestrator.storage.manifest import MANIFEST
from tests.conftest import damage

KEY = "0123456789abcdef0123"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def writing(content: bytes) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        path.write_bytes(content)

    return write


def save(store: Store, epoch: int, attempt: int = 1, word: str = "first") -> Checkpoint:
    """A checkpoint whose files say which epoch and which writer they are of."""
    files = {name: writing(f"{name} {epoch} {word}".encode()) for name in (WEIGHTS, TRAINING)}
    return store.save(KEY, attempt, epoch, files, {"word": word, "history": [epoch]})


def saved(store: Store, *epochs: int) -> None:
    store.claim(KEY)
    for epoch in epochs:
        save(store, epoch)


def files(store: Store) -> list[str]:
    """Everything under the key, hidden or not, but for the lock."""
    folder = store.folder(KEY)
    found = (str(path.relative_to(folder)) for path in folder.rglob("*"))
    return sorted(name for name in found if name != ".lock")


def test_what_is_saved_is_loaded(store: Store) -> None:
    saved(store, 3)
    found = store.load(KEY, 3)
    assert found is not None
    assert (found.epoch, found.info) == (3, {"word": "first", "history": [3]})
    assert found.weights.read_bytes() == b"weights.pt 3 first"
    assert found.training.read_bytes() == b"training.pt 3 first"
    assert store.newest(KEY) == found


def test_the_newest_epoch_counts_by_number_not_by_time_or_spelling(store: Store) -> None:
    saved(store, 100_000, 99_999, 2)
    assert store.epochs(KEY) == [2, 99_999, 100_000]
    newest = store.newest(KEY)
    assert newest is not None
    assert newest.epoch == 100_000


def test_an_unknown_key_has_nothing(store: Store) -> None:
    assert store.epochs(KEY) == []
    assert store.newest(KEY) is None
    assert store.result(KEY) is None
    assert store.best(KEY) is None
    assert store.progress(KEY) is None
    assert store.origin(KEY) is None
    assert store.attempt(KEY) == 0
    assert not store.root.exists()


@pytest.mark.parametrize("how", ["missing", "cut", "zeroed", "empty", "one bit"])
@pytest.mark.parametrize("name", [WEIGHTS, TRAINING, MANIFEST])
def test_a_damaged_checkpoint_is_refused_by_name_and_the_one_before_is_taken(
    store: Store, caplog: pytest.LogCaptureFixture, name: str, how: str
) -> None:
    saved(store, 1, 2)
    path = store.folder(KEY) / "epoch_00002"
    damage(path / name, how)
    newest = store.newest(KEY)
    assert newest is not None
    assert newest.epoch == 1
    said = [record.message for record in caplog.records]
    assert said[-1] == f"checkpoint {path}: {name} is missing or damaged"


def test_where_no_checkpoint_verifies_there_is_none(store: Store) -> None:
    saved(store, 1, 2)
    for epoch in (1, 2):
        damage(store.folder(KEY) / f"epoch_0000{epoch}" / WEIGHTS, "cut")
    assert store.newest(KEY) is None


def test_a_writer_that_fails_leaves_nothing(store: Store) -> None:
    saved(store, 1)
    before = files(store)

    def fail(path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        store.save(KEY, 1, 2, {WEIGHTS: writing(b"whole"), TRAINING: fail}, {})
    assert files(store) == before


WRITE_AND_WAIT = """
import sys, time
from pathlib import Path
from orchestrator.storage.checkpoints import Store

def slow(path):
    with path.open("wb") as file:
        file.write(b"half")
        file.flush()
        print("half", flush=True)
        time.sleep(600)

root, key, place = sys.argv[1:]
quick = lambda path: path.write_bytes(b"whole")
names = ["weights.pt", "training.pt"]
store = Store(Path(root))
attempt = store.claim(key)
store.save(key, attempt, 1, {name: quick for name in names}, {})
store.save(key, attempt, 2, {name: slow if name == place else quick for name in names}, {})
"""


def kill_while_writing(store: Store, place: str) -> None:
    """A process that is killed with -9 when it has written half of a file of epoch 2."""
    command = [sys.executable, "-c", WRITE_AND_WAIT, str(store.root), KEY, place]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        process.kill()
    assert (line, process.returncode) == (b"half\n", -9)


@pytest.mark.parametrize("place", [WEIGHTS, TRAINING])
def test_a_writer_killed_while_it_saves_leaves_no_half_checkpoint(store: Store, place: str) -> None:
    kill_while_writing(store, place)
    assert store.epochs(KEY) == [1]
    newest = store.newest(KEY)
    assert newest is not None
    assert newest.epoch == 1
    attempt = store.claim(KEY)
    assert attempt == 2
    assert store.load(KEY, save(store, 2, attempt).epoch) is not None


def test_what_a_killed_writer_left_goes_when_the_next_one_prunes(store: Store) -> None:
    kill_while_writing(store, WEIGHTS)
    attempt = store.claim(KEY)
    for epoch in (2, 3):
        save(store, epoch, attempt)
    store.prune(KEY, attempt, best=3)
    assert [path.name for path in store.folder(KEY).glob(".epoch_*")] == []


def test_every_claim_has_a_number_of_its_own(store: Store) -> None:
    with ThreadPoolExecutor(8) as pool:
        numbers = list(pool.map(lambda _: store.claim(KEY), range(32)))
    assert sorted(numbers) == list(range(1, 33))
    assert store.attempt(KEY) == 32


@pytest.mark.parametrize(
    "write",
    [
        lambda store: save(store, 1, word="stale"),
        lambda store: save(store, 3, word="stale"),
        lambda store: store.prune(KEY, 1, best=1, keep=1),
        lambda store: store.finish(KEY, 1, {"best_epoch": 1}),
    ],
    ids=["save again", "save", "prune", "finish"],
)
def test_an_older_attempt_can_change_nothing(store: Store, write: Callable[[Store], None]) -> None:
    saved(store, 1, 2)
    assert store.claim(KEY) == 2
    before = files(store)
    with pytest.raises(StaleWriter, match=f"attempt 1 of {KEY}: attempt 2 has taken over"):
        write(store)
    assert files(store) == before
    first = store.load(KEY, 1)
    assert first is not None
    assert first.info["word"] == "first"


def test_an_epoch_that_is_trained_again_replaces_the_old_one(store: Store) -> None:
    saved(store, 1)
    save(store, 1, store.claim(KEY), "second")
    found = store.load(KEY, 1)
    assert found is not None
    assert found.weights.read_bytes() == b"weights.pt 1 second"


def test_pruning_keeps_the_newest_two_and_the_weights_of_the_best(store: Store) -> None:
    saved(store, 1, 2, 3, 4, 5)
    store.prune(KEY, 1, best=2)
    assert store.epochs(KEY) == [2, 4, 5]
    best = store.load(KEY, 2)
    assert best is not None
    assert best.weights.read_bytes() == b"weights.pt 2 first"
    assert not best.training.exists()
    assert all((store.folder(KEY) / f"epoch_0000{epoch}" / TRAINING).is_file() for epoch in (4, 5))


def test_a_best_checkpoint_among_the_newest_stays_whole(store: Store) -> None:
    saved(store, 1, 2, 3)
    store.prune(KEY, 1, best=3, keep=1)
    assert store.epochs(KEY) == [3]
    newest = store.newest(KEY)
    assert newest is not None
    assert newest.training.is_file()


def test_training_does_not_go_on_from_a_checkpoint_without_its_optimizer(store: Store) -> None:
    saved(store, 1, 2, 3)
    store.prune(KEY, 1, best=1, keep=1)
    damage(store.folder(KEY) / "epoch_00003" / WEIGHTS, "cut")
    assert store.epochs(KEY) == [1, 3]
    assert store.newest(KEY) is None


@pytest.mark.parametrize("key", ["", "..", "a/b", "../up", "/abs", "UPPER", "a b", "a\n", "k" * 65])
def test_a_key_never_leads_out_of_the_store(store: Store, key: str) -> None:
    with pytest.raises(ValueError, match="not a key"):
        store.claim(key)
    with pytest.raises(ValueError, match="not a key"):
        store.result(key)
    assert not store.root.exists()


def test_a_result_stands_with_its_best_checkpoint(store: Store) -> None:
    saved(store, 1, 2)
    result = {"best_epoch": 1, "test": {"test/loss": 0.5}}
    assert store.result(KEY) is None
    store.finish(KEY, 1, result)
    assert store.result(KEY) == {"attempt": 1, **result}
    best = store.best(KEY)
    assert best is not None
    assert best.epoch == 1
    shutil.rmtree(best.path)
    assert store.result(KEY) is None
    assert store.best(KEY) is None


@pytest.mark.parametrize("how", ["missing", "cut", "empty"])
def test_a_result_does_not_stand_when_its_weights_are_gone(store: Store, how: str) -> None:
    saved(store, 1)
    store.finish(KEY, 1, {"best_epoch": 1})
    damage(store.folder(KEY) / "epoch_00001" / WEIGHTS, how)
    assert store.best(KEY) is None
    assert store.result(KEY) is None  # else it stays `done`, and its children fail for ever


def test_progress_is_what_was_said_last(store: Store) -> None:
    store.claim(KEY)
    for epoch in (1, 2):
        store.report(KEY, 1, {"epoch": epoch, "loss": 0.5})
    said = store.progress(KEY) or {}
    assert (said["attempt"], said["epoch"], said["loss"]) == (1, 2, 0.5)
    assert (said["host"], said["pid"]) == (platform.node(), os.getpid())
    damage(store.folder(KEY) / "progress.json", "cut")
    assert store.progress(KEY) is None


def test_the_origin_of_a_run_is_kept(store: Store) -> None:
    store.claim(KEY)
    store.set_origin(KEY, {"run_id": "r1", "uri": "http://127.0.0.1:5000"})
    assert store.origin(KEY) == {"run_id": "r1", "uri": "http://127.0.0.1:5000"}


def test_what_is_forgotten_is_trained_anew(store: Store) -> None:
    attempt = store.claim(KEY)
    save(store, 1, attempt)
    store.finish(KEY, attempt, {"best_epoch": 1})
    assert store.result(KEY) is not None
    store.forget(KEY)
    assert store.result(KEY) is None and store.epochs(KEY) == [] and store.attempt(KEY) == attempt


def test_the_best_checkpoint_has_a_spare_that_stands_in_for_it(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    saved(store, 1, 2, 3)
    store.back_up(KEY, 1, 2)
    found = store.load(KEY, 2)
    assert found is not None and found.path.name == "epoch_00002" and caplog.records == []
    damage(found.weights, "zeroed")
    spare = store.load(KEY, 2)
    assert spare is not None and spare.path.name == "spare_00002"
    assert spare.weights.read_bytes() == b"weights.pt 2 first" and spare.info == found.info
    assert TRAINING not in spare.files
    assert "epoch_00002: weights.pt is missing or damaged" in caplog.text
    shutil.rmtree(found.path)
    assert store.load(KEY, 2) == spare


def test_only_the_newest_spare_is_kept_and_a_damaged_one_is_made_again(store: Store) -> None:
    saved(store, 1, 2, 3)
    store.back_up(KEY, 1, 1)
    store.back_up(KEY, 1, 2)
    names = [path.name for path in store.folder(KEY).glob("spare_*")]
    assert names == ["spare_00002"]
    (store.folder(KEY) / "spare_00002" / WEIGHTS).unlink()
    store.back_up(KEY, 1, 2)
    assert (store.folder(KEY) / "spare_00002" / WEIGHTS).read_bytes() == b"weights.pt 2 first"


def test_a_result_stands_on_the_spare_too(store: Store) -> None:
    saved(store, 1)
    store.back_up(KEY, 1, 1)
    store.finish(KEY, 1, {"best_epoch": 1})
    shutil.rmtree(store.folder(KEY) / "epoch_00001")
    assert store.result(KEY) is not None and store.best(KEY) is not None
    shutil.rmtree(store.folder(KEY) / "spare_00001")
    assert store.result(KEY) is None


@pytest.mark.parametrize("how", ["missing", "cut", "zeroed", "empty"])
@pytest.mark.parametrize("trace", ["checkpoint", "progress", "log", "end"])
def test_an_attempts_number_is_never_given_twice(store: Store, trace: str, how: str) -> None:
    store.claim(KEY)
    assert store.claim(KEY) == 2
    if trace == "checkpoint":
        save(store, 1, 2)
    elif trace == "progress":
        store.report(KEY, 2, {"epoch": 0})
    elif trace == "log":
        store.log(KEY, 2, 0).write_text("hello")
    else:
        store.end(KEY, 2, "KILLED", "", "submission")
    damage(store.folder(KEY) / "attempt", how)
    assert store.attempt(KEY) == 2
    assert store.claim(KEY) == 3


def test_an_older_attempt_can_not_say_how_far_it_is(store: Store) -> None:
    store.claim(KEY)
    store.claim(KEY)
    with pytest.raises(StaleWriter):
        store.report(KEY, 1, {"epoch": 1})
    assert store.progress(KEY) is None


OWN = """
import sys, time
from pathlib import Path
from orchestrator.storage.checkpoints import Store
owned = Store(Path(sys.argv[1])).own(sys.argv[2], "study other")
print("owned" if owned else "not", flush=True)
time.sleep(600)
"""


def test_a_key_has_one_owner_until_that_process_dies(store: Store) -> None:
    assert store.owner(KEY) is None
    command = [sys.executable, "-c", OWN, str(store.root), KEY]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"owned\n"
        assert store.own(KEY, "study mine") is None
        assert store.owner(KEY) == "study other"
        process.kill()
    assert store.owner(KEY) is None
    owned = store.own(KEY, "study mine")
    assert owned is not None
    assert store.own(KEY, "the same study, another label") is None
    owned.close()
    assert store.owner(KEY) is None


def test_how_an_attempt_ended_is_kept_for_its_submission_alone(store: Store) -> None:
    attempt = store.claim(KEY)
    store.end(KEY, attempt, "FAILED", "too hot", "run-1")
    assert store.ended(KEY, "run-1") == ("FAILED", "too hot")
    assert store.ended(KEY, "run-2") is None
    store.claim(KEY)
    assert store.ended(KEY, "run-1") is None


def test_logs_are_listed_by_attempt_and_rank(store: Store) -> None:
    for attempt, rank in ((10, 0), (2, 1), (2, 0)):
        store.log(KEY, attempt, rank).touch()
    (store.folder(KEY) / "logs" / "notes.log").touch()
    assert list(store.logs(KEY)) == [(2, 0), (2, 1), (10, 0)]
