"""What Ray hands to a starting worker is understood as Ray's own script understands it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from ray._private.ray_constants import SETUP_WORKER_FILENAME
from ray._private.runtime_env.context import RuntimeEnvContext
from ray._private.utils import update_envs

from orchestrator.warm import start_worker
from orchestrator.warm.request import RAY_SETUP, SOCKET, WANTED, listen

FILE = Path(start_worker.__file__)


def arguments(language: str = "PYTHON", **context: object) -> list[str]:
    """The arguments of a worker, its context as Ray 2.60 writes it."""
    text = RuntimeEnvContext(**context).serialize()  # type: ignore[arg-type]
    return [
        "default_worker.py",
        "--node-id=1",
        f"--language={language}",
        f"--serialized-runtime-env-context={text}",
    ]


def test_a_plain_environment_is_its_variables_and_folder() -> None:
    read = start_worker.environment_of
    assert read(arguments()) == (None, {})
    assert read(arguments(env_vars={"A": "1"})) == (None, {"A": "1"})
    moved = arguments(command_prefix=["cd", "'/a b'", "&&"])
    assert read(moved) == ("/a b", {})


@pytest.mark.parametrize(
    ("language", "context"),
    [
        ("JAVA", {}),
        ("PYTHON", {"py_executable": "uv run"}),
        ("PYTHON", {"override_worker_entrypoint": "/in/a/container.py"}),
        ("PYTHON", {"command_prefix": ["conda", "activate", "e", "&&"]}),
        ("PYTHON", {"command_prefix": ["source", "/venv/bin/activate", "&&"]}),
    ],
)
def test_what_only_rays_script_can_do_is_left_to_it(language: str, context: dict) -> None:
    assert start_worker.environment_of(arguments(language, **context))[1] is None


def test_variables_refer_to_others_as_rays_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KNOWN", "k")
    given = {"A": "${KNOWN}/x", "B": "$KNOWN", "C": "${UNKNOWN}:y", "D": "plain $", "E": ""}
    expected = start_worker.expanded(given)
    update_envs(given)
    assert {name: os.environ[name] for name in given} == expected
    for name in given:
        monkeypatch.delenv(name)


@pytest.mark.parametrize("template", ["none wanted", "none there", "refuses"])
def test_without_a_template_rays_own_script_starts_the_worker(
    tmp_path: Path, template: str
) -> None:
    """It gets the arguments, environment and folder that Ray gave."""
    own = tmp_path / SETUP_WORKER_FILENAME
    own.write_text(
        "import json, os, sys\n"
        "print(json.dumps([sys.argv[1:], os.getcwd(), os.environ.get('SEEN')]))\n"
    )
    path = tmp_path / "warm"
    wanted = {} if template == "none wanted" else {WANTED: "1"}
    given = arguments(env_vars={"SEEN": "only by the worker"} | wanted)
    listening = listen(path) if template == "refuses" else None
    command = [sys.executable, str(FILE), *given]
    environment = os.environ | {SOCKET: str(path), RAY_SETUP: str(own)}
    process = subprocess.Popen(
        command, env=environment, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    if listening is not None:
        listening.accept()[0].close()
        listening.close()
    out, err = process.communicate(timeout=120)
    assert json.loads(out) == [given, str(tmp_path), None]
    assert (b"started plainly" in err) == (template != "none wanted")
