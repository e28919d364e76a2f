"""Give the command line what it does not expect, and see that it answers in words.

    python -m tests.fuzz --seconds 600 --seed 1

Each case is a command line with its working folder, drawn by hypothesis (tests/fuzz_cases.py). It
fails where it ends in a traceback or in the last-resort line of `main`, where its exit status is
none of those documented, where it sends commands to the terminal, where it takes longer than 20
seconds (more on a machine that is busy), or more than 4 GB. Most cases run in one process, one
after the other; some in a process of their own, with closed, narrow or ASCII outputs, or with
Ctrl-C at a moment drawn.
"""

import argparse
import contextlib
import importlib
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unicodedata
from pathlib import Path

import hypothesis
import psutil
from hypothesis import HealthCheck, Phase

from orchestrator.cli.main import COMMANDS, main
from tests.fuzz_cases import Case, cases

SLOW_SECONDS, MOST_BYTES = 20.0, 4 * 10**9
ROOT = Path(__file__).parents[1]
COMMAND = [sys.executable, "-m", "tests.fuzz"]
SHELLS = {  # how a process of its own is started: what follows the command, its environment
    "ascii": ("", {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}),
    "narrow": ("", {"COLUMNS": "20"}),
    "no columns": ("", {"COLUMNS": "0"}),
    "closed": (">&-", {}),
    "all closed": ("<&- >&- 2>&-", {}),
    "full": (">/dev/full", {}),
    "head": ("| head -1", {}),
    "ctrl-c": ("", {}),
}


def faults(status: object, out: str, err: str) -> list[str]:
    """What is wrong with the answer of a command."""
    found = []
    if status not in (0, 1, 2, 130):
        found.append(f"exit status {status}")
    if "Traceback (most recent call last)" in out + err:
        found.append("traceback")
    if "error: unexpected " in err:
        found.append("an error that was not foreseen")
    if any(unicodedata.category(letter) in ("Cc", "Cs") for letter in {*out, *err} - {*"\n\t"}):
        found.append("control characters")
    if status in (1, 2) and not err and not out:
        found.append("no reason")
    if (longest := max(map(len, err.splitlines()), default=0)) > 3000:
        found.append(f"a line of {longest} letters")
    return found


class Here:
    """Runs cases in this process, and says before each what it is."""

    def __init__(self, folder: Path, until: float, draw: random.Random) -> None:
        self.folder, self.until, self.draw, self.count = folder, until, draw, 0

    def __call__(self, case: Case) -> None:
        if time.monotonic() > self.until:
            return
        self.count += 1
        place = self.folder / str(self.count)
        place.mkdir()
        os.chdir(place)
        with contextlib.suppress(OSError, UnicodeEncodeError):
            case.write(place)
        shell = self.draw.choice(list(SHELLS)) if self.draw.random() < 0.03 else ""
        self._tell(begin=repr(case), shell=shell)
        status, out, err = _own_process(case, shell, self.draw) if shell else _ask(case)
        found = faults(status, out, err)
        if shell in ("closed", "all closed", "full", "head"):
            found = [fault for fault in found if fault != "no reason"]
        self._tell(end=found, status=status, out=out[-500:], err=err[-1500:])
        os.chdir(self.folder)
        shutil.rmtree(place, ignore_errors=True)

    def _tell(self, **facts: object) -> None:
        print(json.dumps(facts, default=str), file=sys.__stdout__, flush=True)


def _ask(case: Case) -> tuple[object, str, str]:
    """Run a command in this process. Returns exit status, output, error output."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status: object = main(case.arguments)
        except SystemExit as stop:
            status = stop.code
        except BaseException as error:  # noqa: B036 - whatever comes out is a fault
            status = repr(error)
    return status, out.getvalue(), err.getvalue()


def _own_process(case: Case, shell: str, draw: random.Random) -> tuple[object, str, str]:
    line, environment = SHELLS[shell]
    command = [sys.executable, "-m", "orchestrator", *case.arguments]
    process = subprocess.Popen(
        ["bash", "-c", f'"$@" {line}' if line else 'exec "$@"', "bash", *command],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="surrogateescape",
        env=os.environ | environment,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    if shell == "ctrl-c":
        while process.poll() is None and "pydantic_core" not in _maps(process.pid):
            time.sleep(0.01)
        time.sleep(draw.random() * 5)
        process.send_signal(signal.SIGINT)
    out, err = process.communicate()
    return process.returncode, out, err


def _maps(pid: int) -> str:
    """The files that a process has loaded."""
    try:
        return Path(f"/proc/{pid}/maps").read_text()
    except OSError:
        return ""


def run_here(seconds: float, seed: int, folder: Path) -> None:
    """Draw cases and run them, until the time is over."""
    os.environ["ORCHESTRATOR_HOME"] = str(folder / "home")
    os.environ["PYTHONPATH"] = str(ROOT)
    for module, _, _ in COMMANDS.values():  # seconds, which are not those of the first case
        importlib.import_module(f"orchestrator.cli.{module}")
    runner = Here(folder, time.monotonic() + seconds, random.Random(seed))
    settings = hypothesis.settings(
        max_examples=200, deadline=None, database=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    while time.monotonic() < runner.until:
        hypothesis.seed(seed)(settings(hypothesis.given(cases())(runner.__call__)))()
        seed += 1_000_003


def watch(seconds: float, seed: int, folder: Path) -> list[str]:
    """Run cases in a process that is watched. Returns a line for each fault."""
    until, found, count = time.monotonic() + seconds, list[str](), 0
    while (left := until - time.monotonic()) > 0:
        watched = Watched(left, seed, folder)
        watched.follow()
        count, seed = count + watched.count, seed + 1
        found += watched.found
    print(f"{count} cases, {len(found)} faults")
    return found


class Watched:
    """A process that runs cases. It is ended where a case hangs, or takes too much memory."""

    def __init__(self, seconds: float, seed: int, folder: Path) -> None:
        command = [*COMMAND, "--here", str(folder), "--seed", str(seed)]
        self.told = tempfile.TemporaryFile("w+b", dir=folder)
        self.process = psutil.Popen(
            [*command, "--seconds", str(seconds)], cwd=ROOT, stdout=self.told.fileno()
        )
        self.found: list[str] = []
        self.count, self.read, self.case = 0, 0, ""
        self.ends = float("inf")  # when the case has taken too long

    def follow(self) -> None:
        """Read what the process says of its cases, until it ends."""
        while self.process.poll() is None:
            time.sleep(0.05)
            self._read()
            if time.monotonic() > self.ends:
                self._end("took too long")
            elif _bytes(self.process) > MOST_BYTES:
                self._end("took too much memory")
        self._read()
        self.told.close()
        if self.process.returncode and not self.found:
            self.found.append(f"the process ended with {self.process.returncode}: {self.case}")

    def _read(self) -> None:
        text = os.pread(self.told.fileno(), 10**8, self.read)
        whole = text[: text.rfind(b"\n") + 1]
        self.read += len(whole)
        for facts in map(json.loads, whole.splitlines()):
            if "begin" in facts:
                self.count, self.case = self.count + 1, _cut(facts["begin"])
                # a process of its own loads its modules too
                self.ends = time.monotonic() + _limit() * (3 if facts["shell"] else 1)
                continue
            self.ends = float("inf")  # the next case is still being made up
            if facts["end"]:
                self.found.append(f"{facts.pop('end')}: {self.case}\n    {facts}")

    def _end(self, why: str) -> None:
        self.found.append(f"{why}: {self.case}")
        for inner in self.process.children(recursive=True):
            inner.kill()
        self.process.kill()
        self.process.wait()


def _limit() -> float:
    """The seconds that a case may take: longer where the machine has other work to do."""
    return SLOW_SECONDS * max(1.0, 2 * os.getloadavg()[0] / (os.cpu_count() or 1))


def _cut(text: str) -> str:
    """Leave out the middle of a long text."""
    return text if len(text) < 1500 else f"{text[:1000]} ... {text[-500:]}"


def _bytes(process: psutil.Process) -> int:
    """The memory of a process and of those that it has started."""
    total = 0
    for one in (process, *process.children(recursive=True)):
        with contextlib.suppress(psutil.Error):
            total += one.memory_info().rss
    return total


def fuzz() -> int:
    """Read the command line. Returns 1 where a fault was found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--here", help=argparse.SUPPRESS)  # the folder of a watched process
    options = parser.parse_args()
    if options.here:
        with tempfile.TemporaryDirectory(dir=options.here) as folder:
            run_here(options.seconds, options.seed, Path(folder).resolve())
        return 0
    with tempfile.TemporaryDirectory() as folder:
        found = watch(options.seconds, options.seed, Path(folder))
    for line in found:
        print(line)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(fuzz())
