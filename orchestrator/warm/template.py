"""Runs the warm template of a node, which has loaded the large libraries and forks workers.

python -P template.py SOCKET PARENT   (the process with whose end it ends)

It has one child for each job, which has loaded Ray and the job's own code too: Ray reads the job's
id from the environment when it is loaded, so the node's template cannot load it. One more child
forks modules: drivers, which have no job's id yet, and processes that draw. It has loaded Ray,
MLflow and what draws, and no code of ours.
"""

import gc
import importlib
import os
import signal
import socket
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from orchestrator.warm import ids, start_module, worker  # noqa: E402 (the path comes first)
from orchestrator.warm.request import (  # noqa: E402
    HEARD,
    MODULES,
    Job,
    Request,
    close,
    listen,
    receive,
    send,
)

sys.path.pop(0)  # a job brings its own code; where libraries lie the product may lie too

ONE_THREAD = {  # a fork keeps no thread but its own: none may have begun before
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "JE_ARROW_MALLOC_CONF": "background_thread:false",
}
LIBRARIES = ("torch", "torchvision", "numpy", "pydantic", "yaml", "psutil", "PIL.Image")
JOB_MODULES = ("ray", "ray.train.torch", "ray.tune", "orchestrator.tuning.trial_worker")
LIBRARIES_OF_MODULES = (
    *("ray", "ray.train.torch", "ray.tune", "ray.job_submission", "mlflow", "mlflow.pyfunc"),
    *("matplotlib.figure", "tifffile", "imagecodecs", "sklearn.datasets", "sklearn.manifold"),
)
UNSAFE = 3  # exit status: it would be no better when started again
_STANDARD_FILES = 3
_JOBS = 8  # that have a template
TEMPLATES_A_JOB = 3
_POLL_SECONDS = 1.0
# What begins with RAY_ is read when Ray is loaded, or later. These a module may have otherwise than
# its template: Ray reads them later, or in other processes alone.
_OF_A_MODULE = {
    *("RAY_JOB_ID", "RAY_RAYLET_PID", "RAY_ADDRESS", "RAY_JOB_CONFIG_JSON_ENV_VAR"),
    *("RAY_worker_niceness", "RAY_LD_PRELOAD_ON_WORKERS"),
    "RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES",
    "RAY_EXPERIMENTAL_NOSET_ASCEND_RT_VISIBLE_DEVICES",
}


class UnsafeFork(Exception):
    """Raised where a process forked from this one would not be as good as a new one."""


def load(modules: Sequence[str]) -> None:
    """Import modules. Raises UnsafeFork where they have begun threads or touched a GPU."""
    for name in modules:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()  # the collector would write to pages that forks share
    if (threads := len(os.listdir("/proc/self/task"))) > 1:
        raise UnsafeFork(f"{threads} threads run: {[t.name for t in threading.enumerate()]}")
    if "torch" in sys.modules and sys.modules["torch"].cuda.is_initialized():
        raise UnsafeFork("a GPU is in use")


class BecomeTemplate(Exception):
    """Raised in a process that was forked to be the template of a job, or of modules."""

    def __init__(self, requests: socket.socket, first: Request | None) -> None:
        """first: the first request of the job; None for modules."""
        super().__init__("the template of a job")
        self.requests, self.first = requests, first


class BecomeWorker(Exception):
    """Raised in a process that was forked to be a worker or module."""

    def __init__(self, request: Request) -> None:
        super().__init__("a worker")
        self.request = request


class NodeTemplate:
    """Hears requests, and hands each to the template of its job."""

    def __init__(self, path: Path, parent: int) -> None:
        self.listening, self.parent = listen(path), parent
        self.jobs: dict[Job, socket.socket] = {}  # the newest last
        self.made: Counter[Job] = Counter()

    def serve(self) -> None:
        """Serve until the parent has ended. Raises BecomeTemplate in the template of a job, and in
        that of modules, which is made at once."""
        self.listening.settimeout(_POLL_SECONDS)
        self._make(MODULES, None)
        while os.getppid() == self.parent:
            with suppress(TimeoutError):
                connection, _ = self.listening.accept()
                with connection:
                    self._hear(connection)

    def _hear(self, connection: socket.socket) -> None:
        try:
            connection.settimeout(_POLL_SECONDS)
            request, files = receive(connection, _STANDARD_FILES)
        except OSError as error:
            print(f"refused: {error}", flush=True)
            return
        try:
            connection.sendall(HEARD)
            self._hand_on(request, [connection.fileno(), *files])
        except OSError as error:  # the worker was started plainly meanwhile
            print(f"not started: {error}", flush=True)
        finally:
            close(files)

    def _hand_on(self, request: Request, files: list[int]) -> None:
        """Send a request to the template of its job. Where there is none, or it has died, a new one
        is made, a few times: then the job's workers start plainly."""
        job = request.job
        if job is None:
            return
        while True:
            if job not in self.jobs:
                if self.made[job] == TEMPLATES_A_JOB:
                    return
                self._make_room()
                self._make(job, None if request.module else request)
            try:
                send(self.jobs[job], request.encoded(), files)
                return
            except OSError:
                self.jobs.pop(job).close()

    def _make_room(self) -> None:
        """End the template of the oldest job, where there are many."""
        jobs = [job for job in self.jobs if job != MODULES]
        if len(jobs) == _JOBS:
            self.jobs.pop(jobs[0]).close()

    def _make(self, job: Job, first: Request | None) -> None:
        """Fork the template of a job. first: as in `BecomeTemplate`, which is raised there."""
        ours, theirs = socket.socketpair(socket.AF_UNIX)
        if os.fork():
            theirs.close()
            self.jobs[job] = ours
            self.made[job] += 1
            return
        for item in (ours, self.listening, *self.jobs.values()):
            item.close()
        raise BecomeTemplate(theirs, first)


def serve_job(requests: socket.socket, first: Request) -> None:
    """Be the template of a job, until the node's template closes the socket. Raises BecomeWorker in
    each worker, UnsafeFork.

    first: the job's first request; it comes once more, as all do.
    """
    os.setsid()
    worker.settle(first)
    worker.forget_own_package()
    os.environ.update(ONE_THREAD)
    _load_with_ray(JOB_MODULES)
    for request, files, asking in _forked_for_each(requests):
        worker.become(request, files, asking)
        raise BecomeWorker(request)


def serve_modules(requests: socket.socket) -> None:
    """Be the template of modules; otherwise as `serve_job`. It serves none whose settings of Ray
    are not those with which this process has loaded Ray."""
    os.setsid()
    settings = _settings_of_ray(os.environ)
    _load_with_ray(LIBRARIES_OF_MODULES)
    print("the template of modules is ready", flush=True)
    for request, files, asking in _forked_for_each(requests):
        if differing := _settings_of_ray(request.environment) ^ settings:
            print(f"a module starts plainly: it has other settings {differing}", flush=True)
            os._exit(0)
        asking = start_module.keep(asking, files)
        worker.become(request, files, asking)
        raise BecomeWorker(request)


def _load_with_ray(modules: Sequence[str]) -> None:
    """Load Ray and modules that use it. Raises UnsafeFork."""
    importlib.import_module("ray")
    with ids.class_ids_of_the_system():
        load(modules)
    if not ids.forks_draw_different_ids():
        raise UnsafeFork("Ray's ids were drawn before the fork")


def _settings_of_ray(environment: Mapping[str, str]) -> set[tuple[str, str]]:
    """Return what of an environment Ray may read when it is loaded."""
    return {
        (name, value)
        for name, value in environment.items()
        if name.startswith(("RAY_", "TUNE_")) and name not in _OF_A_MODULE
    }


def _forked_for_each(
    requests: socket.socket,
) -> Iterator[tuple[Request, list[int], socket.socket]]:
    """Yield each request with its files and the connection to who asks, in a process of its own,
    forked for it; ends here when the socket is closed."""
    while True:
        try:
            request, (asking, *files) = receive(requests, 1 + _STANDARD_FILES)
        except OSError:  # closed
            return
        connection = socket.socket(fileno=asking)
        if os.fork() == 0:
            requests.close()
            yield request, files, connection
            os._exit(0)  # not reached: each becomes something else
        connection.close()
        close(files)


def main(path: str, parent: str) -> None:
    """Serve, and be in each forked process what it was forked for."""
    os.environ.update(ONE_THREAD)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel removes workers that have ended
    try:
        request = _serve(Path(path), int(parent))
    except UnsafeFork as error:
        print(f"processes start plainly: {error}", flush=True)
        os._exit(UNSAFE)
    if request is not None:
        worker.run(request)


def _serve(path: Path, parent: int) -> Request | None:
    """Return in each worker its request, and None in a template that ends. Raises UnsafeFork."""
    try:
        try:
            template = NodeTemplate(path, parent)  # who asks before all is loaded waits
            load(LIBRARIES)
            print("the template of warm workers is ready", flush=True)
            template.serve()
        except BecomeTemplate as forked:
            requests, first = forked.requests, forked.first
        else:
            return None
        if first is None:
            serve_modules(requests)
        else:
            serve_job(requests, first)
    except BecomeWorker as forked_worker:
        return forked_worker.request
    return None


if __name__ == "__main__":
    main(*sys.argv[1:])
