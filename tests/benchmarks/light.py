"""What do the commands cost that look at a study, or stop it? Wall and CPU seconds of `status`,
`compare`, `logs` and `stop` of a finished study of ten Runs, against a Python that only loads what
prints, reads YAML and speaks HTTP."""

import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from tests.benchmarks.turns import Line, ratio, shown
from tests.installed import installed_python, without_checkout
from tests.integration.command import ALONE, Command

LEAST = ("-c", "import requests, rich.console, yaml")
COMMANDS = {
    "status": ("status",),
    "compare": ("compare", "ten"),
    "logs": ("logs", "ten/full/0"),
    "stop": ("stop", "ten"),
}


def measure(turns: int) -> list[Line]:
    command = Command(Path(tempfile.mkdtemp(prefix="bench-")))
    try:
        study = command.study("ten", form=f"{ALONE}seeds: {list(range(10))}\n")
        done = command.run("submit", study)
        assert done.returncode == 0, done.stderr
        return _measure(command, turns)
    finally:
        command.run("down")
        shutil.rmtree(command.folder)


def _measure(command: Command, turns: int) -> list[Line]:
    home = ("--home", str(command.home))
    works = {"least": LEAST}
    works |= {n: ("-m", "orchestrator", *words, *home) for n, words in COMMANDS.items()}
    wall: dict[str, list[float]] = {name: [] for name in works}
    cpu: dict[str, list[float]] = {name: [] for name in works}
    for turn in range(turns + 1):  # the first one warms up
        for name, words in works.items():
            seconds, used = cost(command, words)
            if turn:
                wall[name].append(seconds)
                cpu[name].append(used)
    lines = [Line("Python that loads requests, rich and yaml: CPU", shown(cpu["least"]), "", turns)]
    for name in COMMANDS:
        over = ratio(cpu[name], cpu["least"])
        lines += [
            Line(f"`{name}` of ten Runs: CPU", shown(cpu[name]), "", turns),
            Line(f"`{name}`: CPU over that Python's", f"{over:.2f}", "≤ 3", turns),
            Line(f"`{name}`: wall", shown(wall[name]), "≤ 0.5 s on idle cores", turns),
        ]
    return lines


def cost(command: Command, words: tuple[str, ...]) -> tuple[float, float]:
    """Return wall and CPU seconds of a Python with these arguments."""
    started = time.perf_counter()
    process = subprocess.Popen(
        [installed_python(), *words],
        cwd=command.folder,
        env=without_checkout() | command.environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    _, status, used = os.wait4(process.pid, 0)
    taken = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, words
    return taken, used.ru_utime + used.ru_stime
