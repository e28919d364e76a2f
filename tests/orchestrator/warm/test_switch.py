"""Where workers start warm, and where not."""

import inspect
import sys
from pathlib import Path

import pytest
from ray._private import node

from orchestrator.warm import head, switch
from orchestrator.warm.request import SOCKET, WANTED

SOCKET_PATH = Path("/a/socket")


def test_a_node_starts_with_a_template_unless_told_otherwise_or_with_a_gpu(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(switch, "_GPU", tmp_path / "no GPU")
    plain = [sys.executable, "-m", "ray.scripts.scripts"]
    warm = [sys.executable, "-P", head.__file__, str(SOCKET_PATH)]
    assert switch.ray_command(SOCKET_PATH) == warm
    monkeypatch.setenv(switch.SWITCH, "0")
    assert switch.ray_command(SOCKET_PATH) == plain
    monkeypatch.delenv(switch.SWITCH)
    (tmp_path / "no GPU").touch()
    assert switch.ray_command(SOCKET_PATH) == plain


def test_a_job_asks_for_warm_workers_where_its_node_has_a_template(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv(SOCKET, raising=False)
    assert switch.job_environment() == {}
    monkeypatch.setenv(SOCKET, "/a/socket")
    assert switch.job_environment() == {WANTED: "1"}
    monkeypatch.setenv(switch.SWITCH, "0")  # the job has packages that a template lacks
    assert switch.job_environment() == {}


def test_ray_reads_the_name_of_its_set_up_script_when_a_node_starts() -> None:
    """`head.py` sets it before that. Breaks where Ray names the script otherwise than in 2.60."""
    source = inspect.getsource(node.Node.__init__)
    assert "ray_constants.SETUP_WORKER_FILENAME" in source
