"""What a hostile file tries: to run code, to fill the memory, to name a place outside the home.

What is tried on services that run stands in integration/test_security.py.
"""

import json
import os
import pickle
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
import yaml

from orchestrator.cli.main import main
from orchestrator.config.errors import StudyError
from orchestrator.config.mlflow_settings import MlflowSettings
from orchestrator.config.yaml_loader import study_name
from orchestrator.execution.worker import build_training
from orchestrator.services import mlflow_server, ray_head
from orchestrator.services.record import ServiceError
from orchestrator.storage.files import write_secret
from orchestrator.storage.home import Home
from tests.conftest import ALONE, Tasks
from trainables.data.datasets import DatasetConfig, read
from trainables.dataset import DataError
from trainables.engine.checkpoints import Unrecoverable
from trainables.loading.image_table import open_table
from trainables.models.encoders import build_encoder
from trainables.pixels.images import UnreadableImage, open_image
from trainables.tasks.predictor import Classifier

AS_ROOT = pytest.mark.skipif(os.getuid() != 0, reason="only root can give a folder away")
Begin = Callable[..., psutil.Process]


class Trap:
    """A pickle that makes a folder when a careless reader opens it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self.folder),)

    @property
    def sprung(self) -> bool:
        return self.folder.exists()

    def save(self, path: Path) -> None:
        torch.save({"encoder.conv1.weight": self}, path)


@pytest.fixture
def trap(tmp_path: Path) -> Iterator[Trap]:
    """Fails the test in which it springs."""
    made = Trap(tmp_path / "sprung")
    yield made
    assert not made.sprung


# --- code in files -----------------------------------------------------------------------------


def test_the_trap_springs_where_a_reader_is_careless(tmp_path: Path) -> None:
    trap = Trap(tmp_path / "sprung")
    trap.save(tmp_path / "trap.pt")
    torch.load(tmp_path / "trap.pt", weights_only=False)
    assert trap.sprung


def test_code_in_a_weights_file_of_a_study_is_not_run(
    tasks: Tasks, tmp_path: Path, trap: Trap
) -> None:
    file = tmp_path / "weights.pt"
    torch.save(build_encoder("resnet10_slim", small_input=True)[0].state_dict(), file)
    task = tasks.make(weights=str(file))
    trap.save(file)  # after the plan has looked at it
    with pytest.raises(Unrecoverable, match="weights.pt is no state-dict file"):
        build_training(task, ALONE)
    with pytest.raises(StudyError, match="weights.pt is no state-dict file"):
        tasks.make(weights=str(file))


def test_code_in_a_parent_s_checkpoint_is_not_run(tasks: Tasks, trap: Trap) -> None:
    attempt = tasks.store.run("parent").begin_attempt()
    tasks.store.run("parent").writer(attempt).save(1, {"weights.pt": trap.save}, {})
    result = {"best_epoch": 1, "history": [], "test": {}, "facts": {}}
    tasks.store.run("parent").writer(attempt).finish(result)
    with pytest.raises((pickle.UnpicklingError, Unrecoverable), match="eights"):
        build_training(replace(tasks.make(), parent="parent", parent_label="parent"), ALONE)


@pytest.mark.parametrize("name", ["weights.pt", "training.pt"])
def test_code_in_a_run_s_own_checkpoint_is_not_run(tasks: Tasks, trap: Trap, name: str) -> None:
    task = tasks.make()
    run = build_training(task, ALONE)
    files: dict[str, Callable[[Path], None]] = {
        "weights.pt": lambda path: torch.save(run.trainable.model.state_dict(), path),
        "training.pt": lambda path: torch.save({"optimizer": run.optimizer.state_dict()}, path),
    }
    info = {"history": [], "seconds": 0.0}
    tasks.store.run(task.key).writer(task.attempt).save(1, files | {name: trap.save}, info)
    with pytest.raises((pickle.UnpicklingError, Unrecoverable), match="eights"):
        run.resume()


def test_code_in_a_model_that_predicts_is_not_run(tmp_path: Path, trap: Trap) -> None:
    described = {
        "trainable": "classify", "config": {"dataset": "x"}, "classes": ["a"],
        "colours": [], "size": 8,
    }  # fmt: skip
    (tmp_path / "model.json").write_text(json.dumps(described), encoding="utf-8")
    trap.save(tmp_path / "weights.pt")
    with pytest.raises(pickle.UnpicklingError, match="eights"):
        Classifier(tmp_path)


@pytest.mark.parametrize("name", ["images.npy", "labels.npy", "part_train.npy"])
def test_code_in_the_cache_of_images_is_not_run(
    tasks: Tasks, tmp_path: Path, trap: Trap, name: str
) -> None:
    built = Path(tasks.make().table)
    folder = Path(shutil.copytree(built, tmp_path / built.name))
    np.save(folder / name, np.array([trap], dtype=object), allow_pickle=True)
    meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
    meta["bytes"][name] = (folder / name).stat().st_size
    (folder / "meta.json").write_text(json.dumps(meta), encoding="utf-8")
    with pytest.raises(ValueError, match="[Aa]rray.*object|allow_pickle"):
        open_table(folder)


def test_code_in_a_file_that_is_not_cifar10_s_own_is_not_run(tmp_path: Path, trap: Trap) -> None:
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    for name in [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch", "batches.meta"]:
        (folder / name).write_bytes(pickle.dumps(trap))
    with pytest.raises(DataError, match="fails its checksum"):
        read(DatasetConfig(type="cifar10"), tmp_path)


def test_an_image_that_is_postscript_in_disguise_starts_no_interpreter(
    tmp_path: Path, trap: Trap, monkeypatch: pytest.MonkeyPatch
) -> None:
    ghostscript = tmp_path / "bin" / "gs"
    ghostscript.parent.mkdir()
    ghostscript.write_text(f"#!/bin/sh\nmkdir {trap.folder}\n", encoding="utf-8")
    ghostscript.chmod(0o700)
    monkeypatch.setenv("PATH", f"{ghostscript.parent}:{os.environ['PATH']}")
    monkeypatch.setattr("PIL.EpsImagePlugin.gs_binary", None)  # it remembers that there was none
    lines = ["%!PS-Adobe-3.0 EPSF-3.0", "%%BoundingBox: 0 0 8 8", "%%EndComments", "showpage", ""]
    (tmp_path / "cat.jpg").write_text("\n".join(lines), encoding="utf-8")
    with pytest.raises(UnreadableImage, match="PostScript, which is not read"):
        open_image(tmp_path / "cat.jpg")


# --- YAML --------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder, with a home that does not exist yet."""
    monkeypatch.setenv("ORCHESTRATOR_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What a command says that must be refused before it does anything."""
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("error: ")
    assert not Path(os.environ["ORCHESTRATOR_HOME"]).exists()
    return err


TAGS = [
    "!!python/object/apply:os.mkdir ['{}']",
    "!!python/object/apply:subprocess.check_call [['mkdir', '{}']]",
    "!<tag:yaml.org,2002:python/object/apply:os.mkdir> ['{}']",
]


@pytest.mark.parametrize("tag", TAGS)
def test_a_tag_runs_nothing_whatever_file_it_stands_in(
    folder: Path, trap: Trap, capsys: pytest.CaptureFixture[str], tag: str
) -> None:
    value = tag.format(trap.folder)
    (folder / "evil.yaml").write_text(f"study: evil\nquestion: {value}\n", encoding="utf-8")
    assert "line 2: unknown tag" in refused(capsys, "plan", "evil.yaml")
    assert "unknown tag" in refused(capsys, "plan", "digits", "--set", f"question={value}")
    assert study_name("evil.yaml") == "evil.yaml"
    (folder / "mlflow.yaml").write_text(f"host: {value}\n", encoding="utf-8")
    assert "line 1: unknown tag" in refused(capsys, "status")


def grown(first: str, line: str) -> str:
    """A text of which every line names the one before ten times."""
    lines = [line.format(", ".join([f"*a{level}"] * 10)) for level in range(30)]
    return "\n".join(f"a{level}: &a{level} {text}" for level, text in enumerate([first, *lines]))


BOMBS = {
    "lists": grown("[x]", "[{}]"),
    "mappings": grown("{k: 1}", "{{a: [{}]}}"),
    "merged mappings": grown("{k: 1}", "{{<<: [{}]}}"),
    "one wide mapping": f"a: &a {{{', '.join(f'k{i}: 1' for i in range(3000))}}}\n"
    f"b: {{<<: [{', '.join(['*a'] * 3000)}]}}",
    "one long word": f"a: &a {'x' * 500_000}\nb: [{', '.join(['*a'] * 50_000)}]",
    "one long number": "a: 1" + "1" * 800_000,
    "one long file": "a: x\n#" + "x" * 5_000_000,
}
READ = """
import pathlib, resource, sys
resource.setrlimit(resource.RLIMIT_AS, (2**29, 2**29))
from orchestrator.config.yaml_loader import YamlError, read_mapping
try:
    read_mapping(pathlib.Path(sys.argv[1]))
except YamlError as fault:
    print(fault)
"""


@pytest.mark.parametrize("name", BOMBS)
def test_a_small_file_does_not_grow_large(tmp_path: Path, name: str) -> None:
    """In half a gigabyte and half a minute; without a limit each takes all there is of one."""
    file = tmp_path / "bomb.yaml"
    file.write_text(BOMBS[name], encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-c", READ, str(file)], capture_output=True, text=True, timeout=300,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])},
    )  # fmt: skip
    assert done.stderr == ""
    assert "holds more than 1000000" in done.stdout or "digits is too long" in done.stdout
    assert len(done.stdout) < 200


# --- names -------------------------------------------------------------------------------------

NAMES = ["../x", "..", ".", "/etc/x", "a/b", "a\\b", "~", "~root", "a\0b", "a\n", "\n", "", " "]
NAMES += ["$HOME", "%2e%2e", "a b", "a:b", "a.b", "é", "x" * 65]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("place", ["study", "stages", "data"])
def test_a_name_that_could_be_a_path_is_refused(
    folder: Path, capsys: pytest.CaptureFixture[str], place: str, name: str
) -> None:
    names = {"study": "s", "stages": "a", "data": "d"} | {place: name}
    stage = {"trainable": "classify", "config": {"dataset": names["data"]}}
    study = {"study": names["study"], "stages": {names["stages"]: stage}}
    study["data"] = {names["data"]: {"type": "digits"}}
    (folder / "names.yaml").write_text(yaml.safe_dump(study), encoding="utf-8")
    said = refused(capsys, "plan", "names.yaml")
    if "\0" in name:
        assert f"{name!r} holds a character that is no text" in said
    else:
        assert f"name {name!r} may hold letters, digits, '_' and '-', 64 at most" in said


@pytest.mark.parametrize("name", ["../x", "/etc/x", "..", "digits/../../x"])
def test_a_name_that_is_set_on_the_command_line_is_refused_too(
    folder: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    assert "name '" in refused(capsys, "plan", "digits", "--set", f"study={name}")
    dataset = f"stages.rotation.config.dataset={name}"
    assert f"no data '{name}'" in refused(capsys, "plan", "digits", "--set", dataset)


# --- what others on this machine may read ------------------------------------------------------


def mode(path: Path) -> int:
    return path.lstat().st_mode & 0o777


@pytest.fixture
def open_umask() -> Iterator[None]:
    """A shell that lets everybody read and write what it makes."""
    before = os.umask(0)
    yield
    os.umask(before)


def test_home_and_token_are_the_user_s_alone_whatever_the_umask(
    tmp_path: Path, open_umask: None
) -> None:
    home = Home(tmp_path / "home").create()
    for path in (home.root, home.store, home.cache, home.plans, home.logs):
        assert mode(path) == 0o700
    write_secret(home.ray_token, "abc")
    assert mode(home.ray_token) == 0o600


@pytest.fixture
def sockets(home: Home) -> Iterator[Path]:
    """The folder under /tmp in which the head's sockets will lie."""
    way = [home.ray_temp, *home.ray_temp.parents]
    (folder,) = (path for path in way if path.name.startswith("orch"))
    yield folder
    if folder.is_symlink():
        folder.unlink()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def begun() -> Iterator[Begin]:
    """Starts a service and says what it is before it has done anything; ends it afterwards."""
    processes: list[subprocess.Popen[bytes]] = []

    def begin(start: Callable[..., Any], *arguments: object) -> psutil.Process:
        process, _ = start(*arguments)
        processes.append(process)
        begun = psutil.Process(process.pid)
        while begun.cmdline() != process.args:  # it is there before it is itself
            time.sleep(0.01)
        return begun

    yield begin
    for process in processes:
        process.kill()
        process.wait()


def test_a_head_asks_for_a_token_that_only_the_user_can_read(
    home: Home, sockets: Path, begun: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.ray_token.write_text("0" * 64, encoding="utf-8")
    home.ray_token.chmod(0o644)
    for name, value in {"MODE": "disabled", "TOKEN": "known", "TOKEN_PATH": "/dev/null"}.items():
        monkeypatch.setenv(f"RAY_AUTH_{name}", value)
    environment = begun(ray_head.start, home).environ()
    assert mode(home.ray_token) == 0o600
    found = {name: value for name, value in environment.items() if name.startswith("RAY_AUTH_")}
    assert found == {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(home.ray_token)}


@pytest.mark.parametrize("planted", ["link", pytest.param("folder", marks=AS_ROOT)])
def test_a_folder_for_sockets_that_another_user_has_made_is_refused(
    home: Home, sockets: Path, begun: Begin, tmp_path: Path, planted: str
) -> None:
    """Its name can be guessed, and its owner can exchange whatever lies in it."""
    if planted == "link":
        sockets.symlink_to(tmp_path)
    else:
        sockets.mkdir()
        os.chown(sockets, 65534, 65534)
    with pytest.raises(ServiceError, match=str(sockets)):
        begun(ray_head.start, home)


def test_a_password_of_the_database_is_on_no_command_line(
    home: Home, begun: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mlflow_server, "_check_driver", lambda *addresses: None)  # not installed
    settings = MlflowSettings(backend_store_uri="postgresql://me:hunter2@127.0.0.1:1/mlflow")
    process = begun(mlflow_server.start, home, settings, None)
    assert "hunter2" not in " ".join(process.cmdline())
