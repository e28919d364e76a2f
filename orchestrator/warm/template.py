"""Runs the warm template of a node, which has loaded the large libraries and forks workers.

python -P template.py SOCKET PARENT   (the process with whose end it ends)

It has one child for each job, which has loaded Ray and the job's own code too: Ray reads the job's
id from the environment when it is loaded, so the node's template cannot load it.
"""

import gc
import importlib
import os
import signal
import socket
import sys
import threading
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from orchestrator.warm import ids, worker  # noqa: E402 (the path comes first)
from orchestrator.warm.request import HEARD, Request, close, listen, receive, send  # noqa: E402

ONE_THREAD = {  # a fork keeps no thread but its own: none may have begun before
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "JE_ARROW_MALLOC_CONF": "background_thread:false",
}
LIBRARIES = ("torch", "torchvision", "numpy", "pydantic", "yaml", "psutil", "PIL.Image")
JOB_MODULES = ("ray", "ray.train.torch", "ray.tune", "orchestrator.tuning.trial_worker")
UNSAFE = 3  # exit status: it would be no better when started again
_STANDARD_FILES = 3
_JOBS = 8  # that have a template
TEMPLATES_A_JOB = 3
_POLL_SECONDS = 1.0

Job = tuple[str, str]


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
    """Raised in a process that was forked to be the template of a job."""

    def __init__(self, requests: socket.socket, first: Request) -> None:
        super().__init__("the template of a job")
        self.requests, self.first = requests, first


class BecomeWorker(Exception):
    """Raised in a process that was forked to be a worker."""

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
        """Serve until the parent has ended. Raises BecomeTemplate in the template of a job."""
        self.listening.settimeout(_POLL_SECONDS)
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
                self.jobs[job] = self._fork(request)
                self.made[job] += 1
            try:
                send(self.jobs[job], request.encoded(), files)
                return
            except OSError:
                self.jobs.pop(job).close()

    def _make_room(self) -> None:
        """End the template of the oldest job, where there are many."""
        if len(self.jobs) == _JOBS:
            self.jobs.pop(next(iter(self.jobs))).close()

    def _fork(self, request: Request) -> socket.socket:
        """Return the socket of a new template for a request's job."""
        ours, theirs = socket.socketpair(socket.AF_UNIX)
        if os.fork():
            theirs.close()
            return ours
        for item in (ours, self.listening, *self.jobs.values()):
            item.close()
        raise BecomeTemplate(theirs, request)


def serve_job(requests: socket.socket, first: Request) -> None:
    """Be the template of a job, until the node's template closes the socket. Raises BecomeWorker in
    each worker, UnsafeFork.

    first: the job's first request; it comes once more, as all do.
    """
    os.setsid()
    worker.settle(first)
    worker.forget_own_package()
    os.environ.update(ONE_THREAD)
    importlib.import_module("ray")
    with ids.class_ids_of_the_system():
        load(JOB_MODULES)
    if not ids.forks_draw_different_ids():
        raise UnsafeFork("Ray's ids were drawn before the fork")
    while True:
        try:
            request, (asking, *files) = receive(requests, 1 + _STANDARD_FILES)
        except OSError:  # closed
            return
        connection = socket.socket(fileno=asking)
        if os.fork() == 0:
            requests.close()
            worker.become(request, files, connection)
            raise BecomeWorker(request)
        connection.close()
        close(files)


def main(path: str, parent: str) -> None:
    """Serve, and be in each forked process what it was forked for."""
    os.environ.update(ONE_THREAD)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel removes workers that have ended
    try:
        request = _serve(Path(path), int(parent))
    except UnsafeFork as error:
        print(f"workers start plainly: {error}", flush=True)
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
        serve_job(requests, first)
    except BecomeWorker as forked_worker:
        return forked_worker.request
    return None


if __name__ == "__main__":
    main(*sys.argv[1:])
