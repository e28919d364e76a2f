"""Entry point of the command line: `python -m orchestrator COMMAND`.

Before the first slow import it prepares the process: standard streams that can be written to, and a
Ctrl-C that ends it with one line, also while modules load and while Python shuts down.
"""

import contextlib
import os
import signal
import sys
from types import FrameType


def _leave(signum: int = signal.SIGINT, frame: FrameType | None = None) -> None:
    """End the process at once, as after Ctrl-C."""
    with contextlib.suppress(OSError):  # nobody reads standard error
        os.write(2, b"interrupted\n")
    os._exit(130)


def _without_interrupts(ignored: "sys.UnraisableHookArgs") -> None:
    """Report an exception that Python cannot raise; one of Ctrl-C ends the process."""
    if issubclass(ignored.exc_type, KeyboardInterrupt):
        _leave()
    sys.__unraisablehook__(ignored)


def _prepare_ctrl_c() -> None:
    """Let Ctrl-C end the process at once; `main` takes it over while a command runs.

    A shell starts background jobs with Ctrl-C ignored: that stays.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _leave)
        sys.unraisablehook = _without_interrupts


def _prepare_streams() -> None:
    """Open what is closed, so that no file takes its number, and show `?` for what cannot be
    shown."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # takes the lowest free number
        if getattr(sys, name) is None:
            mode = "w" if number else "r"
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="replace")  # type: ignore[union-attr]


if __name__ == "__main__":
    _prepare_ctrl_c()
    _prepare_streams()
    from orchestrator.cli.main import main

    sys.exit(main())
