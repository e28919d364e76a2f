"""One home for the whole session: its services, and a study that was run with them."""

import shutil

import psutil
import pytest

from orchestrator.storage.home import Home
from tests.integration.command import SHELL, Command


@pytest.fixture(scope="session")
def command(tmp_path_factory):
    """A home with its services up; stopped at the end, with every process they started."""
    made = Command(tmp_path_factory.mktemp("integration"))
    made.environment |= SHELL
    before = set(psutil.pids())
    assert made.run("up").returncode == 0
    yield made
    assert "ray" in made.run("down").stdout
    left = [p for p in psutil.process_iter(["cmdline"]) if p.pid not in before
            and str(made.home) in " ".join(p.info["cmdline"] or [])]  # fmt: skip
    assert left == []
    shutil.rmtree(Home(made.home).ray_temp.parent)


@pytest.fixture(scope="session")
def finished(command):
    """A study that was submitted and has finished."""
    result = command.run("submit", command.study("tiny"))
    assert result.returncode == 0, result.stdout + result.stderr
    return result
