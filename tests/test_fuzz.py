"""The fuzz for half a minute, and what it says where there is a fault."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests import fuzz
from tests.fuzz_cases import FOLDERS, STUDIES, WEIGHTS, Case


def test_no_command_ends_in_a_traceback_a_hang_or_silence() -> None:
    command = [sys.executable, "-m", "tests.fuzz", "--seconds", "30", "--seed", "0"]
    done = subprocess.run(command, cwd=fuzz.ROOT, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith(" 0 faults\n")
    assert int(done.stdout.split()[0]) > 0  # cases


@pytest.mark.parametrize(
    ("status", "out", "err", "found"),
    [
        (0, "a\n\tb", "", []),
        (2, "", "error: x\n", []),
        (3, "", "error: x\n", ["exit status 3"]),
        ("KeyError(1)", "", "x", ["exit status KeyError(1)"]),
        (1, "", "", ["no reason"]),
        (1, "", "Traceback (most recent call last)\n", ["traceback"]),
        (1, "", "error: unexpected KeyError: 1: ...\n", ["an error that was not foreseen"]),
        (0, "\x1b[0m", "", ["control characters"]),
        (2, "", "x" * 3001, ["a line of 3001 letters"]),
    ],
)
def test_a_fault_is_seen(status: object, out: str, err: str, found: list[str]) -> None:
    assert fuzz.faults(status, out, err) == found


def test_a_case_that_hangs_is_ended_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fuzz, "SLOW_SECONDS", 0.5)
    text = 'import time; print(\'{"begin": "this", "shell": ""}\', flush=True); time.sleep(60)'
    monkeypatch.setattr(fuzz, "COMMAND", [sys.executable, "-c", text])
    start, watched = time.monotonic(), fuzz.Watched(60.0, 0, tmp_path)
    watched.follow()
    assert watched.found == ["took too long: this"]
    assert time.monotonic() - start < 50
    assert watched.process.poll() is not None


def test_every_kind_of_folder_and_weights_can_be_made(tmp_path: Path) -> None:
    for number, kind in enumerate([*FOLDERS, *WEIGHTS]):
        folder = tmp_path / str(number)
        folder.mkdir()
        case = Case(["plan"], "study: s", [kind] if kind in FOLDERS else [])
        case.weights = kind if kind in WEIGHTS else "none"
        case.write(folder)
    assert len({study["study"] for study in STUDIES}) == len(STUDIES)
