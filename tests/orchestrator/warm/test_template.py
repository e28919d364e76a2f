"""Workers and modules that are forked from a template are as good as new ones, and nothing leaks
between them. The template is that of an installed product: a checkout has a folder of its own, an
installed one lies among the libraries.

Ray's worker script is a small script here, which writes down what it finds; so is a module.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from orchestrator.planning.code_version import PACKAGES
from orchestrator.warm import template
from orchestrator.warm.request import RAY_SETUP, SOCKET, SWITCH, WANTED
from tests.installed import installed_packages, installed_python

WORKER = """
import json, os, random, signal, sys, threading, time
import numpy, torch, ray
import orchestrator.execution.worker as ours
import ray.util.placement_group
import jinja2  # lies beside the product; no template has loaded it
facts = {
    "pid": os.getpid(), "argv": sys.argv, "folder": os.getcwd(), "environment": dict(os.environ),
    "random": random.random(), "numpy": numpy.random.rand(), "torch": torch.rand(1).item(),
    "id": ray.PlacementGroupID.of(ray.JobID.from_int(1)).hex(),
    "actor": ray.ActorClassID.from_random().hex(),
    "threads": len(os.listdir("/proc/self/task")), "torch_threads": torch.get_num_threads(),
    "code": ours.__file__, "cuda": torch.cuda.is_initialized(), "main": __name__,
    "default": str(torch.get_default_dtype()), "grad": torch.is_grad_enabled(),
    "patched": hasattr(torch, "patched"), "session": os.getsid(0), "umask": os.umask(0o22),
    "child_signal": signal.getsignal(signal.SIGCHLD) == signal.SIG_DFL,
    "files": len(os.listdir("/proc/self/fd")), "path": sys.path[:2],
    "adjusted": open("/proc/self/oom_score_adj").read().strip(),
}
with open(sys.argv[1] + ".part", "w") as file:
    json.dump(facts, file)
os.rename(sys.argv[1] + ".part", sys.argv[1])
print("said by the worker", flush=True)
if "leaks" in sys.argv:
    torch.set_default_dtype(torch.float64)
    torch.set_grad_enabled(False)
    torch.set_num_threads(7)
    torch.patched = True
    os.environ["LEAKED"] = "1"
    held = bytearray(2 << 30)
    for _ in range(5):
        threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
if "stays" in sys.argv:
    time.sleep(600)
"""
MODULE = """
import os, signal, sys
if "asks" in sys.argv:
    print("heard", sys.stdin.readline().strip(), flush=True)
if "fails" in sys.argv:
    sys.exit(7)
if "dies" in sys.argv:
    os.kill(os.getpid(), signal.SIGSEGV)
"""
LEAST_SECONDS = 300.0  # that a busy machine is given

Start = Callable[..., subprocess.Popen[bytes]]


def _program(name: str) -> str:
    """The installed product's file of the room `warm`."""
    return str(installed_packages() / "orchestrator" / "warm" / f"{name}.py")


def _heed_ctrl_c() -> None:
    """A shell starts background jobs with SIGINT ignored, which processes inherit."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def facts_at(path: Path) -> dict[str, Any]:
    """What a worker has written, as soon as it has."""
    deadline = time.monotonic() + LEAST_SECONDS
    while not path.is_file():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return dict(json.loads(path.read_text()))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a job brings: the packages, and beside them the worker's script."""
    made = tmp_path_factory.mktemp("job")
    for package in PACKAGES:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(package, made / package.name, ignore=ignored)
    (made / "worker_script.py").write_text(WORKER)
    (made / "module.py").write_text(MODULE + WORKER)
    (made / "setup_worker.py").write_text("print('started plainly', flush=True)\n")
    return made


@pytest.fixture(scope="module")
def node(folder: Path) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """A template and its socket."""
    path = folder / "warm"
    command = [installed_python(), "-P", _program("template"), str(path), str(os.getpid())]
    log = (folder / "log").open("wb")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "RAY_"))}
    environment["ORCHESTRATOR_OF_THE_TEMPLATE"] = "1"
    process = subprocess.Popen(
        command, cwd="/", env=environment, stdout=log, stderr=log, preexec_fn=_heed_ctrl_c
    )
    while "is ready" not in (folder / "log").read_text():
        assert process.poll() is None, (folder / "log").read_text()
        time.sleep(0.05)
    yield process, path
    for child in psutil.Process(process.pid).children(recursive=True):
        child.kill()
    process.kill()
    process.wait()
    log.close()


@pytest.fixture
def start(node: tuple[subprocess.Popen[bytes], Path], folder: Path) -> Iterator[Start]:
    """Starts a worker as Ray would; all are ended afterwards."""
    started = []

    def begin(out: Path, *arguments: str, job: str = "01000000") -> subprocess.Popen[bytes]:
        variables = {WANTED: "1", "PYTHONPATH": str(folder), "FOR": "the job"}
        context = {"command_prefix": ["cd", str(folder), "&&"], "env_vars": variables}
        script = [str(folder / "worker_script.py"), str(out), *arguments]
        ours = {
            SOCKET: str(node[1]),
            RAY_SETUP: str(folder / "setup_worker.py"),
            "RAY_JOB_ID": job,
            "RAY_RAYLET_PID": str(os.getpid()),
            "OMP_NUM_THREADS": "1",
        }
        process = subprocess.Popen(
            [installed_python(), _program("start_worker"), *script, "--language=PYTHON",
             f"--serialized-runtime-env-context={json.dumps(context)}"],
            env={"PATH": os.environ["PATH"], "HOME": os.environ["HOME"], **ours},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=_heed_ctrl_c,
        )  # fmt: skip
        started.append(process)
        return process

    yield begin
    for process in started:
        process.terminate()  # the worker gets it too, and lets go of the pipes
        process.communicate()


@pytest.fixture
def begin(node: tuple[subprocess.Popen[bytes], Path], folder: Path) -> Iterator[Start]:
    """Starts a module as a job would; all are ended afterwards."""
    started = []

    def run(*arguments: str, **variables: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [installed_python(), "-P", _program("start_module"), "module", *arguments],
            env={"PATH": os.environ["PATH"], "FOR": "it", SOCKET: str(node[1]), **variables},
            cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            preexec_fn=_heed_ctrl_c,
        )  # fmt: skip
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()  # what it stands for is killed too, and lets go of the pipes
        process.communicate()


def finished(process: subprocess.Popen[bytes]) -> bytes:
    out, err = process.communicate(timeout=LEAST_SECONDS)
    assert err == b""
    return out


def test_a_worker_has_what_ray_asked_for(start: Start, folder: Path, tmp_path: Path) -> None:
    process = start(tmp_path / "one")
    assert finished(process) == b"said by the worker\n"
    found = facts_at(tmp_path / "one")
    assert found["pid"] != process.pid and found["session"] == found["pid"]
    assert found["argv"] == [str(folder / "worker_script.py"), str(tmp_path / "one")]
    assert found["main"] == "__main__" and found["folder"] == str(folder)
    assert found["environment"]["FOR"] == "the job"
    assert "ORCHESTRATOR_OF_THE_TEMPLATE" not in found["environment"]
    assert found["umask"] == 0o22 and found["child_signal"] and found["adjusted"] == "1000"
    assert found["threads"] == found["torch_threads"] == 1 and not found["cuda"]


def test_a_worker_runs_the_code_that_its_job_brings(
    start: Start, folder: Path, tmp_path: Path
) -> None:
    finished(start(tmp_path / "one"))
    found = facts_at(tmp_path / "one")
    assert found["code"] == str(folder / "orchestrator" / "execution" / "worker.py")
    assert found["path"][0] == str(folder)


def test_workers_draw_different_numbers_and_ids(start: Start, tmp_path: Path) -> None:
    """Two fits of one job once drew one placement group: the end of one ended the other."""
    count = 12
    workers = [start(tmp_path / str(i)) for i in range(count)]
    for worker in workers:
        finished(worker)
    found = [facts_at(tmp_path / str(i)) for i in range(count)]
    for name in ("pid", "random", "numpy", "torch", "id", "actor"):
        assert len({item[name] for item in found}) == count, name


def test_what_a_worker_changes_is_its_own(start: Start, tmp_path: Path) -> None:
    names = ("default", "grad", "patched", "threads", "torch_threads", "files", "environment")
    finished(start(tmp_path / "before"))
    leaking = start(tmp_path / "leaks", "leaks", "stays")
    facts_at(tmp_path / "leaks")
    finished(start(tmp_path / "after"))
    leaking.terminate()
    finished(start(tmp_path / "end"))
    before, *others = (facts_at(tmp_path / name) for name in ("before", "after", "end"))
    for other in others:
        assert {name: other[name] for name in names} == {name: before[name] for name in names}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_reaches_the_worker(start: Start, tmp_path: Path, number: int) -> None:
    process = start(tmp_path / "one", "stays")
    worker = psutil.Process(facts_at(tmp_path / "one")["pid"])
    process.send_signal(number)
    process.wait(LEAST_SECONDS)
    psutil.wait_procs([worker], LEAST_SECONDS)
    assert not worker.is_running()


def test_a_worker_that_is_killed_ends_what_stands_for_it(start: Start, tmp_path: Path) -> None:
    process = start(tmp_path / "one", "stays")
    os.kill(facts_at(tmp_path / "one")["pid"], signal.SIGKILL)
    process.wait(LEAST_SECONDS)


def test_a_template_of_a_job_that_was_killed_is_made_anew(
    node: tuple[subprocess.Popen[bytes], Path], start: Start, tmp_path: Path
) -> None:
    living = start(tmp_path / "living", "stays", job="02000000")
    parent = psutil.Process(facts_at(tmp_path / "living")["pid"]).parent()
    assert parent is not None and parent.ppid() == node[0].pid
    parent.kill()
    psutil.wait_procs([parent], LEAST_SECONDS)
    again = start(tmp_path / "again", job="02000000")
    assert finished(again) == b"said by the worker\n"
    assert living.poll() is None  # a worker lives on without its template


def test_after_many_deaths_the_workers_of_a_job_start_plainly(start: Start, tmp_path: Path) -> None:
    for turn in range(template.TEMPLATES_A_JOB):
        worker = start(tmp_path / str(turn), "stays", job="03000000")
        parent = psutil.Process(facts_at(tmp_path / str(turn))["pid"]).parent()
        assert parent is not None
        parent.kill()
        psutil.wait_procs([parent], LEAST_SECONDS)
        worker.terminate()
    out, err = start(tmp_path / "last", job="03000000").communicate(timeout=LEAST_SECONDS)
    assert out == b"started plainly\n" and b"started plainly" in err


def test_a_node_template_ends_with_what_started_it(folder: Path) -> None:
    path = folder / "short"
    command = ["-P", template.__file__, str(path)]
    program = (
        "import os, subprocess, sys, time\n"
        f"process = subprocess.Popen([sys.executable, *{command!r}, str(os.getpid())])\n"
        "print(process.pid, flush=True)\ntime.sleep(600)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    child = psutil.Process(int(parent.stdout.readline()))
    parent.kill()
    parent.communicate()
    psutil.wait_procs([child], LEAST_SECONDS)
    assert not child.is_running()


def test_a_template_with_a_thread_refuses_to_serve() -> None:
    program = (
        "import sys, threading, time\n"
        f"sys.path.insert(0, {str(PACKAGES[0].parent)!r})\n"
        "from orchestrator.warm.template import load\n"
        "threading.Thread(target=time.sleep, args=(60,), daemon=True, name='pool').start()\n"
        "load(['json'])\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert "UnsafeFork: 2 threads run" in done.stderr and "pool" in done.stderr


def test_a_module_runs_as_python_would_run_it(begin: Start, folder: Path, tmp_path: Path) -> None:
    process = begin(str(tmp_path / "one"), "asks")
    out, err = process.communicate(b"this\n", timeout=LEAST_SECONDS)
    assert (out, err, process.returncode) == (b"heard this\nsaid by the worker\n", b"", 0)
    found = facts_at(tmp_path / "one")
    assert found["pid"] != process.pid and found["main"] == "__main__"
    assert found["argv"] == [str(folder / "module.py"), str(tmp_path / "one"), "asks"]
    assert found["folder"] == found["path"][0] == str(folder)
    assert found["code"] == str(folder / "orchestrator" / "execution" / "worker.py")
    assert found["environment"]["FOR"] == "it" and found["child_signal"]
    assert "ORCHESTRATOR_OF_THE_TEMPLATE" not in found["environment"]
    assert found["torch_threads"] == len(os.sched_getaffinity(0)) and not found["cuda"]


@pytest.mark.parametrize(("how", "status"), [("fails", 7), ("dies", -signal.SIGSEGV), ("", 0)])
def test_who_started_a_module_sees_how_it_ended(
    begin: Start, tmp_path: Path, how: str, status: int
) -> None:
    assert begin(str(tmp_path / "one"), how).wait(LEAST_SECONDS) == status


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_reaches_the_module(begin: Start, tmp_path: Path, number: int) -> None:
    process = begin(str(tmp_path / "one"), "stays")
    facts_at(tmp_path / "one")
    process.send_signal(number)
    assert process.wait(LEAST_SECONDS) == -number


@pytest.mark.parametrize("killed", ["what stands for it", "keeper", "itself"])
@pytest.mark.parametrize("stopped", [False, True])
def test_a_module_and_what_stands_for_it_are_killed_together(
    begin: Start, tmp_path: Path, killed: str, stopped: bool
) -> None:
    process = begin(str(tmp_path / "one"), "stays")
    module = psutil.Process(facts_at(tmp_path / "one")["pid"])
    assert "-m module" in module.cmdline()[0]
    keeper = module.parent()
    assert keeper is not None and "keeper" in keeper.cmdline()[0]
    if stopped:
        module.suspend()
    {"keeper": keeper, "itself": module}.get(killed, psutil.Process(process.pid)).kill()
    assert process.wait(LEAST_SECONDS) == -signal.SIGKILL
    psutil.wait_procs([module, keeper], LEAST_SECONDS)
    assert not module.is_running() and not keeper.is_running()


def test_a_module_with_other_settings_of_ray_starts_plainly(begin: Start, tmp_path: Path) -> None:
    process = begin(str(tmp_path / "one"), "fails", RAY_max_direct_call_object_size="1")
    _, err = process.communicate(timeout=LEAST_SECONDS)
    assert process.returncode == 7 and b"started plainly" in err
    process = begin(str(tmp_path / "one"), "fails", RAY_ADDRESS="127.0.0.1:1")  # no setting
    assert process.communicate(timeout=LEAST_SECONDS)[1] == b"" and process.returncode == 7


def test_a_module_of_a_job_with_packages_of_its_own_is_never_forked(
    begin: Start, tmp_path: Path
) -> None:
    process = begin(str(tmp_path / "one"), **{SWITCH: "0"})
    assert facts_at(tmp_path / "one")["pid"] == process.pid
    assert process.wait(LEAST_SECONDS) == 0


def test_without_a_template_a_module_starts_plainly(begin: Start, tmp_path: Path) -> None:
    process = begin(str(tmp_path / "one"), "fails", **{SOCKET: str(tmp_path / "none")})
    _, err = process.communicate(timeout=LEAST_SECONDS)
    assert process.returncode == 7 and b"started plainly" in err
