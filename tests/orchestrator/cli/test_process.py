"""What a command's process meets: Ctrl-C at any moment, closed, narrow and ASCII outputs, folders
that are gone. Each is the real command in a process of its own."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from orchestrator.cli.console import Terminal
from orchestrator.config.errors import one_line, printable

ROOT = Path(__file__).parents[3]
COMMAND = [sys.executable, "-m", "orchestrator"]


def run(
    folder: Path, line: str, *arguments: str, **environment: str
) -> subprocess.CompletedProcess:
    """Run a command as a shell does that redirects its streams. line: what follows the command."""
    return subprocess.run(
        ["bash", "-c", f'"$@" {line}', "bash", *COMMAND, *arguments],
        cwd=folder, capture_output=True, text=True, timeout=120,
        env=os.environ | {"PYTHONPATH": str(ROOT), "ORCHESTRATOR_HOME": str(folder / "home")}
        | environment,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("line", "status", "error"),
    [
        (">&-", 0, ""),
        ("2>&-", 0, ""),
        ("<&- >&- 2>&-", 0, ""),
        (">/dev/full", 1, "error: cannot write: No space left on device; free some space\n"),
        ("| head -0", 0, ""),
    ],
)
def test_outputs_that_are_closed_or_full_give_no_traceback(
    tmp_path: Path, line: str, status: int, error: str
) -> None:
    done = run(tmp_path, line, "studies")
    assert (done.returncode, done.stderr) == (status, error)


def test_what_ascii_cannot_show_is_a_question_mark(tmp_path: Path) -> None:
    (tmp_path / "é.yaml").write_text("study: s\nquestion: [ä]\n", encoding="utf-8")
    done = run(tmp_path, "", "plan", "é.yaml", PYTHONIOENCODING="ascii")
    assert done.returncode == 2
    assert done.stderr.startswith("error: ?.yaml: ")
    assert "Traceback" not in done.stderr


def test_a_name_that_is_not_utf_8_is_one_line(tmp_path: Path) -> None:
    done = run(tmp_path, "", "plan", os.fsdecode(b"\xff.yaml"))
    assert done.returncode == 2
    assert done.stderr == "error: \\xff.yaml: 1 error\n  there is no such file\n"


@pytest.mark.parametrize("delay", [0.2, 0.5, 1.0, 2.0])
def test_ctrl_c_is_one_line_also_while_modules_load(tmp_path: Path, delay: float) -> None:
    process = subprocess.Popen(
        [*COMMAND, "plan", "digits", "--home", str(tmp_path)],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        # a shell starts background jobs with SIGINT ignored, which this would inherit
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    caught = f"/proc/{process.pid}/status"
    while not _catches_ctrl_c(caught):
        time.sleep(0.01)
    time.sleep(delay)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=600)
    if process.returncode in (0, -signal.SIGINT):  # it was faster, or Python was ending it
        assert out.startswith("digits  ") and err == ""
    else:
        assert (process.returncode, err) == (130, "interrupted\n")


def _catches_ctrl_c(status: str) -> bool:
    """Whether our own handler is in place: Python's is there before a module of ours is read."""
    (line,) = [line for line in Path(status).read_text().splitlines() if line[:7] == "SigCgt:"]
    loaded = Path(status).with_name("maps").read_text()
    return bool(int(line.split()[1], 16) & 1 << signal.SIGINT - 1) and "pydantic_core" in loaded


def test_a_working_folder_that_is_gone_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "gone").mkdir()
    done = subprocess.run(
        ["bash", "-c", 'cd gone && rmdir ../gone && "$@"', "bash", *COMMAND, "plan", "digits"],
        cwd=tmp_path, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    line = "error: the working folder cannot be used (No such file or directory): cd to another\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", line)


@pytest.mark.parametrize(("columns", "width"), [("0", 80), ("1", 20), ("20", 20), ("100", 100)])
def test_a_terminal_of_any_width_prints(
    columns: str, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    assert Terminal().width == width


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b]0;pwned\x07", "\\x1b]0;pwned\\x07"), ("\x9b31m", "\\x9b31m"),
        ("a\u202eb", "a\\u202eb"), (os.fsdecode(b"\xff"), "\\xff"), ("\ud800", "\\ud800"),
        ("\r", "\\x0d"), ("é 猫\n\t", "é 猫\n\t"),
    ],
)  # fmt: skip
def test_no_text_commands_a_terminal(
    text: str, shown: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert printable(text) == shown
    Terminal().print(text, markup=False, end="")
    printed = capsys.readouterr().out  # rich leaves some of them out
    assert printed.translate({10: None, 9: None}).isprintable()
    assert printed.strip() in (shown.strip(), shown.replace("\\x07", "").replace("\\x0d", ""))


def test_a_long_text_is_cut() -> None:
    assert one_line("a\nb") == "a b"
    assert one_line("x" * 5000, 100) == f"{'x' * 96} ..."


def test_commands_print_through_one_place() -> None:
    for path in (ROOT / "orchestrator" / "cli").glob("*.py"):
        if path.name not in ("console.py", "main.py"):
            text = path.read_text(encoding="utf-8")
            assert " print(" not in text, path
            assert " Console(" not in text, path
