"""Turn a process that was just forked from a template into the worker or module asked for."""

import os
import runpy
import signal
import socket
import sys
import traceback
from pathlib import Path

from orchestrator.warm.ids import draw_anew
from orchestrator.warm.request import FORK_SECONDS, GO, Request

_kept: list[socket.socket] = []  # who has asked sees its end when this process ends


def become(request: Request, files: list[int], connection: socket.socket) -> None:
    """Take over the request's files, folder, environment and signals, and report to who has asked.
    Ends the process where nobody waits any more: a plain worker was started instead."""
    os.setsid()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    settle(request)
    signal.pthread_sigmask(signal.SIG_SETMASK, request.blocked)
    _offer_to_the_kernel(request.environment)
    try:
        connection.settimeout(FORK_SECONDS)
        connection.sendall(str(os.getpid()).encode())
        if connection.recv(1) != GO:
            os._exit(0)
    except OSError:
        os._exit(0)
    connection.settimeout(None)
    _kept.append(connection)


def settle(request: Request) -> None:
    """Take over a request's environment, folder, umask and where it finds modules."""
    os.environ.clear()
    os.environ.update(request.environment)
    os.chdir(request.folder)
    os.umask(request.umask)
    asked = list(filter(None, request.environment.get("PYTHONPATH", "").split(os.pathsep)))
    sys.path[:] = asked + [folder for folder in sys.path if folder not in asked]


def forget_own_package() -> None:
    """Forget the package that this file is of: a job brings its own code, in its own version."""
    package = __name__.partition(".")[0]
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        del sys.modules[name]


def _offer_to_the_kernel(environment: dict[str, str]) -> None:
    """Let the kernel end this process first when memory runs out, as Ray wants it of workers. Ray
    has set that for the process that it has started."""
    try:
        wanted = environment.get("RAY_worker_oom_score_adjustment", "1000")
        Path("/proc/self/oom_score_adj").write_text(wanted, encoding="ascii")
    except OSError as error:
        print(f"the kernel may end other processes first: {error}", file=sys.stderr)


def run(request: Request) -> None:
    """Run Ray's worker script, or a module; returns when that has ended."""
    draw_anew()
    threads = int(request.environment.get("OMP_NUM_THREADS") or 0)
    if request.module:
        _use_threads(threads or len(os.sched_getaffinity(0)))
        _run_module(request.argv)
        return
    if threads:
        _use_threads(threads)
    script, *_ = sys.argv = request.argv
    sys.path.insert(0, str(Path(script).parent))  # as Python does for a script
    runpy.run_path(script, run_name="__main__")


def name_process(title: str) -> None:
    """Set what `ps` shows of this process; it was the template's command. Ray is loaded."""
    sys.modules["ray._raylet"].setproctitle(title)


def _run_module(argv: list[str]) -> None:
    """Do what `python -m` does, under that name."""
    module, *_ = sys.argv = argv
    name_process(" ".join([sys.executable, "-m", *argv]))
    sys.path.insert(0, os.getcwd())
    forget_own_package()
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except KeyboardInterrupt:
        traceback.print_exc()
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)


def _use_threads(count: int) -> None:
    """Set the threads of the maths libraries: the template had one, whatever the worker gets."""
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(count)
    if count > 1:
        import threadpoolctl

        threadpoolctl.threadpool_limits(count)
