"""One folder a user: where it is, that it can be written, and that files in it are whole."""

import fcntl
import os
import platform
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from orchestrator.storage.files import locked, read_json, write_json
from orchestrator.storage.home import Home, HomeError, find_home

REPOSITORY = Path(__file__).parents[3]
# a Unix socket's path holds 107 bytes; Ray adds /session_<date>_<pid>/sockets/plasma_store
ROOM_FOR_RAY = 107 - len("/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store")


@pytest.fixture(autouse=True)
def no_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ORCHESTRATOR_HOME", raising=False)
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    monkeypatch.chdir(tmp_path)


def test_the_flag_wins_over_the_environment_over_the_user_s_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert find_home(None).root == tmp_path / "user/.local/share/vision-orchestrator"
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "xdg"))
    assert find_home(None).root == tmp_path / "xdg/vision-orchestrator"
    monkeypatch.setenv("ORCHESTRATOR_HOME", str(tmp_path / "environment"))
    assert find_home(None).root == tmp_path / "environment"
    assert find_home(str(tmp_path / "flag")).root == tmp_path / "flag"


@pytest.mark.parametrize("variable", ["ORCHESTRATOR_HOME", "XDG_DATA_HOME"])
def test_an_empty_variable_is_as_good_as_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, "")
    assert find_home(None).root == tmp_path / "user/.local/share/vision-orchestrator"


def test_a_home_is_absolute_and_knows_the_user(tmp_path: Path) -> None:
    assert find_home("here").root == tmp_path / "here"
    assert find_home("~/there").root == tmp_path / "user/there"
    (tmp_path / "link").symlink_to(tmp_path / "target")
    assert find_home("link").root == tmp_path / "target"


def test_naming_a_home_makes_nothing_and_create_makes_its_folders(tmp_path: Path) -> None:
    home = find_home("a/b")
    assert not (tmp_path / "a").exists()
    assert home.create() is home
    assert home.create() is home
    found = sorted(path.name for path in home.root.iterdir())
    assert found == [".home.lock", "cache", "home.json", "logs", "plans", "store"]
    assert stat.S_IMODE(home.root.stat().st_mode) == 0o700


def test_a_home_keeps_its_name_when_the_machine_or_the_folder_gets_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a dead driver left RUNNING is the home's to settle, in whatever container it is opened
    next."""
    name = Home(tmp_path / "one").create().name
    assert Home(tmp_path / "other").create().name != name
    monkeypatch.setattr("platform.node", lambda: "another-container")
    (tmp_path / "one").rename(tmp_path / "moved")
    assert Home(tmp_path / "moved").create().name == name


def test_a_home_that_an_older_version_has_filled_goes_on_under_its_name(tmp_path: Path) -> None:
    """Its submissions in MLflow carry it."""
    (tmp_path / "store" / "a run").mkdir(parents=True)
    assert Home(tmp_path).create().name == f"{platform.node()}:{tmp_path}"


@pytest.mark.parametrize("way", ["", "inner", "store"])
def test_a_home_that_cannot_be_written_says_what_to_do(tmp_path: Path, way: str) -> None:
    blocked = tmp_path / "home"
    if way == "store":
        blocked.mkdir()
        (blocked / "store").write_text("a file in the way", encoding="utf-8")
    else:
        blocked.write_text("a file in the way", encoding="utf-8")
    home = Home(blocked / "inner" if way == "inner" else blocked)
    with pytest.raises(HomeError) as error:
        home.create()
    assert str(error.value).startswith(f"home {home.root} cannot be written (")
    assert str(error.value).endswith("): give another with --home or ORCHESTRATOR_HOME")
    assert "\n" not in str(error.value)
    assert error.value.status == 2


def test_ray_s_folder_is_short_however_long_the_home_is(tmp_path: Path) -> None:
    long = [Home(tmp_path / ("x" * 200) / f"{n}" / ("y" * 200)) for n in range(2)]
    assert all(len(str(home.ray_temp)) <= ROOM_FOR_RAY for home in long)
    assert long[0].ray_temp != long[1].ray_temp
    assert long[0].ray_temp == Home(long[0].root).ray_temp


def test_ray_s_folder_is_short_however_long_the_temporary_folder_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch = tmp_path / "scratch-of-a-batch-system" / "job-12345678"
    scratch.mkdir(parents=True)
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    assert len(str(Home(tmp_path).ray_temp)) <= ROOM_FOR_RAY


def test_json_is_read_back(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"é": [1, 2.5, None]})
    assert read_json(tmp_path / "a.json") == {"é": [1, 2.5, None]}


@pytest.mark.parametrize("mode", [0o600, 0o644])
def test_a_file_has_the_mode_that_was_asked_for(tmp_path: Path, mode: int) -> None:
    for value in ({"first": 1}, {"second": 2}):
        write_json(tmp_path / "a.json", value, mode)
        assert stat.S_IMODE((tmp_path / "a.json").stat().st_mode) == mode


def test_what_cannot_be_written_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"old": 1})
    with pytest.raises(TypeError):
        write_json(tmp_path / "a.json", {"new": 1, "bad": object()})
    assert read_json(tmp_path / "a.json") == {"old": 1}
    assert os.listdir(tmp_path) == ["a.json"]


WRITE_HALF = """
import sys, time
from pathlib import Path
from orchestrator.storage.home import write_json

class Slow(list):
    def __iter__(self):
        yield "x" * 1_000_000
        print("half", flush=True)
        time.sleep(600)

write_json(Path(sys.argv[1]), {"new": Slow([1])})
"""


def test_a_writer_that_is_killed_leaves_the_old_file_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"old": 1})
    command = [sys.executable, "-c", WRITE_HALF, str(path)]
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        process.kill()
    assert (line, process.returncode) == (b"half\n", -9)
    assert read_json(path) == {"old": 1}


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"3", b"\x00\x00", b"\xff\xfe"])
def test_a_damaged_file_reads_as_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.json").write_bytes(content)
    assert read_json(tmp_path / "a.json") is None


def test_a_missing_file_reads_as_none(tmp_path: Path) -> None:
    assert read_json(tmp_path / "a.json") is None


HOLD = """
import sys, time
from pathlib import Path
from orchestrator.storage.home import locked

with locked(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def another_process_holds(lock: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Another process that holds a lock until its standard input ends."""
    command = [sys.executable, "-c", HOLD, str(lock)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, cwd=REPOSITORY, **pipes) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"held\n"
            yield process
        finally:
            process.kill()


def is_free(lock: Path) -> bool:
    with lock.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


def test_a_lock_keeps_another_process_out_until_it_is_left(tmp_path: Path) -> None:
    lock = tmp_path / ".lock"
    with another_process_holds(lock) as process:
        assert not is_free(lock)
        process.communicate()
        assert process.returncode == 0
        assert is_free(lock)


def test_a_lock_is_given_back_when_its_holder_is_killed(tmp_path: Path) -> None:
    lock = tmp_path / ".lock"
    with another_process_holds(lock) as process:
        process.kill()
        with locked(lock):  # waits until the kernel has given it back
            assert not is_free(lock)
    assert is_free(lock)


def test_a_lock_is_given_back_when_its_block_fails(tmp_path: Path) -> None:
    lock = tmp_path / ".lock"
    with pytest.raises(RuntimeError, match="in the block"), locked(lock):
        raise RuntimeError("in the block")
    assert is_free(lock)
