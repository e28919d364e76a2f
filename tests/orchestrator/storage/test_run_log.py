"""A Run's log has what it printed, logged, warned of and died of; the streams go on as before."""

import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.storage.run_log import fatal_signal, recorded, tail

SPEAK = """
import ctypes, logging, os, sys, time, warnings
from pathlib import Path
from orchestrator.storage.run_log import recorded
with recorded(Path(sys.argv[1])):
    print("printed")
    logging.getLogger("orchestrator.worker").info("logged %d", 1)
    warnings.warn("warned")
    print("to stderr", file=sys.stderr)
    if sys.argv[2] == "raise":
        raise ValueError("the cause")
    if sys.argv[2] == "crash":
        ctypes.string_at(0)
    if sys.argv[2] == "kill":
        os.kill(os.getpid(), 9)
print("after")
"""


def speak(path: Path, end: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", SPEAK, str(path), end]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("end", ["", "raise", "crash", "kill"])
def test_everything_said_is_in_the_file_however_it_ends(tmp_path: Path, end: str) -> None:
    path = tmp_path / "run.log"
    done = speak(path, end)
    text = path.read_text()
    for word in ("printed", "INFO logged 1", "UserWarning: warned", "to stderr"):
        assert word in text
    assert "printed" in done.stdout and "to stderr" in done.stderr and "logged 1" in done.stderr
    assert ("ValueError: the cause" in text) == (end == "raise")
    assert ("after" in done.stdout, "after" in text) == (end == "", False)
    assert fatal_signal(path) == ("Segmentation fault" if end == "crash" else None)


def test_a_second_attempt_writes_behind_the_first(tmp_path: Path) -> None:
    path = tmp_path / "run.log"
    for word in ("one", "two"):
        with recorded(path):
            print(word)
    assert path.read_text() == "one\ntwo\n"


def test_the_tail_of_a_long_log_is_read_alone(tmp_path: Path) -> None:
    path = tmp_path / "run.log"
    path.write_text("x" * 300_000 + "\nthe end")
    assert tail(path).endswith("\nthe end") and len(tail(path)) == 200_000
    assert tail(tmp_path / "none.log") == ""


def test_what_happened_is_not_hidden_by_a_log_that_can_not_be_written() -> None:
    with pytest.raises(ValueError, match="the cause"), recorded(Path("/dev/full")):
        raise ValueError("the cause")


def test_a_log_that_can_not_be_written_is_not_passed_over() -> None:
    with pytest.raises(OSError, match="No space left"), recorded(Path("/dev/full")):
        print("lost")


RAY = """
import logging, sys
from pathlib import Path
import ray
from ray.train.v2._internal.logging.logging import TrainLogLevelFilter
from ray._private.log import PlainRayHandler, generate_logging_config
from orchestrator.storage.run_log import recorded

ray._private.worker.global_worker.set_mode(ray.WORKER_MODE)
generate_logging_config()  # as every process of Ray does
console = PlainRayHandler()
console.addFilter(TrainLogLevelFilter("WARNING"))
logger = logging.getLogger("ray.train")  # as Ray Train sets up a worker
logger.handlers, logger.propagate = [console], False
logger.setLevel(logging.DEBUG)
logging.getLogger().handlers = [console]
before = list(console.filters)
with recorded(Path(sys.argv[1])):
    logger.info("Ray Train, quietly")
    logger.warning("Ray Train warns")
    logging.getLogger("ray.data").warning("Ray warns")
    logging.getLogger("another.library").warning("a library warns")
    logging.getLogger("trainables.engine").info("the Run logs")
logger.warning("afterwards")
assert console.filters == before
"""


def test_a_log_holds_what_the_run_logs_and_not_what_ray_does(tmp_path: Path) -> None:
    path = tmp_path / "run.log"
    command = [sys.executable, "-c", RAY, str(path)]
    console = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    text = path.read_text()
    assert "INFO the Run logs" in text and "a library warns" in text
    assert "Ray" not in text and "quietly" not in console
    for message in ("Ray Train warns", "Ray warns", "a library warns", "the Run logs"):
        assert console.count(message) == 1  # nothing is lost on the console, or said twice
    assert "afterwards" in console and "afterwards" not in text
