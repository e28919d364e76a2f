"""Parses `python -m orchestrator COMMAND` and calls the function of the command.

To add a command: one line in COMMANDS and a function of that name in the module it names.
Exit status: 0 success, 1 something failed, 2 the study or the command line is wrong and nothing
was started, 130 interrupted with Ctrl-C. What nothing else has caught is caught here: one line that
names the file with the traceback.
"""

import argparse
import gc
import importlib
import os
import re
import select
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, NoReturn

from orchestrator.config.errors import Refused, UserError, one_line, printable, suggestion
from orchestrator.storage.files import NO_ROOM
from orchestrator.storage.home import HomeError, find_home

# Command → module of this package (imported when called: torch takes seconds, and `status` needs
# none), flags out of _FLAGS, help text. The module has a function of the command's name.
COMMANDS = {
    "submit": (
        "submit",
        "study set data address cluster json",
        "run what is not done, then compare",
    ),
    "plan": ("plan", "study set data cluster json", "show what submit would run; start nothing"),
    "status": (
        "status",
        "study? cluster json watch",
        "show the state of every study, or all details of one",
    ),
    "compare": (
        "status",
        "study cluster format json",
        "print the table that answers the study's question",
    ),
    "report": ("runs", "study out_file form", "write a study's report as one file to be sent"),
    "stop": ("runs", "study cluster any_home", "stop a study; submit it again to go on"),
    "logs": ("runs", "run cluster", "print the log of a Run, also of a failed one"),
    "predict": (
        "predict",
        "run images out",
        "predict images with the model of a Run",
    ),
    "check": (
        "submit",
        "study? set data address cluster code",
        "look at the hosts of a cluster, or check your own trainable, module:Name",
    ),
    "manifest": (
        "plan",
        "kind study? set data cluster image queue",
        "print a file that makes a cluster: docker, kuberay, ray, slurm",
    ),
    "clean": ("services", "dry_run", "remove stored files that no study's newest plan needs"),
    "up": ("services", "", "start Ray and MLflow on this machine, if they do not run yet"),
    "down": ("services", "", "stop the Ray and MLflow that belong to this home"),
    "open": ("services", "study? ray", "open MLflow's page of a study, or Ray's dashboard"),
    "describe": ("plan", "name? markdown json", "print every key of a study file: NAME's, or all"),
    "studies": ("plan", "", "list the built-in studies"),
    "data": ("plan", "study? set data", "list the data set types, or describe a study's data"),
}
_STUDY = {"metavar": "STUDY", "help": "name of a built-in study, or a study file"}
_FLAGS: dict[str, tuple[str, dict[str, Any]]] = {
    "study": ("study", _STUDY),
    "study?": ("study", {**_STUDY, "nargs": "?"}),
    "set": ("--set", {"metavar": "KEY=VALUE", "action": "append", "default": [],
                      "help": "change a value of the study, such as stages.x.config.epochs=5"}),
    "data": ("--data", {"metavar": "DIR", "help": "folder of the data sets"}),
    "address": ("--address", {"metavar": "URL", "help": "dashboard of another Ray cluster"}),
    "cluster": ("--cluster", {"metavar": "NAME", "help": "a cluster of clusters.yaml"}),
    "code": ("--code", {"metavar": "PATH", "action": "append", "default": [],
                        "help": "file or package of own code (default: in this folder)"}),
    "any_home": ("--any-home", {"action": "store_true",
                                "help": "also a study that another home has submitted"}),
    "ray": ("--ray", {"action": "store_true", "help": "the Ray dashboard, logged in"}),
    "run": ("run", {"metavar": "RUN",
                    "help": "study/label/seed, the start of a key, or an MLflow run id"}),
    "kind": ("kind", {"metavar": "KIND", "choices": ("docker", "kuberay", "ray", "slurm"),
                      "help": "docker, kuberay, ray or slurm"}),
    "image": ("--image", {"metavar": "IMAGE", "help": "container image of the hosts"}),
    "queue": ("--queue", {"metavar": "NAME", "help": "partition of Slurm, or queue of Kueue"}),
    "images": ("images", {"metavar": "IMAGE", "nargs": "+", "help": "image file of any size"}),
    "out": ("--out", {"metavar": "DIR", "help": "folder for masks, overlays and tables"}),
    "out_file": ("--out", {"metavar": "FILE", "help": "the file (default: STUDY.html)"}),
    "form": ("--format", {"metavar": "FORM", "choices": ("html", "pdf", "latex"),
                          "help": "html (default), pdf (needs Chromium), latex: the tables"}),
    "dry_run": ("--dry-run", {"action": "store_true", "help": "list the files, remove nothing"}),
    "name?": ("name", {"metavar": "NAME", "nargs": "?", "help": "such as classify, csv, search"}),
    "markdown": ("--markdown", {"action": "store_true", "help": "print the whole reference"}),
    "format": ("--format", {"metavar": "FORM",
                            "choices": ("text", "csv", "markdown", "latex", "json"),
                            "help": "of the tables: text, csv, markdown, latex, json (--json)"}),
    "watch": ("--watch", {"action": "store_true", "help": "follow the study until it ends"}),
    "json": ("--json", {"action": "store_true", "help": "print JSON on standard output"}),
}  # fmt: skip


def _handler(command: str) -> Callable[[argparse.Namespace], int]:
    """Import the function of a command.

    Python's garbage collector is off meanwhile: imports leave no garbage, and searching for it
    takes a seventh of the time. What is imported is never searched afterwards (`freeze`), not even
    at the end of the process.
    """
    gc.disable()
    try:
        module = importlib.import_module(f"orchestrator.cli.{COMMANDS[command][0]}")
        handler: Callable[[argparse.Namespace], int] = getattr(module, command)
        return handler
    finally:
        gc.freeze()
        gc.enable()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command. Returns the exit status; whatever goes wrong is said in one line."""
    options = None
    try:
        options = _parser().parse_args(arguments)
        _check_working_folder()
        handler = _handler(options.command)
        with _ctrl_c_raises():
            status = handler(options)
            sys.stdout.flush()
        return status
    except SystemExit:  # of the parser: help, or a wrong command line
        _flush_or_drop()
        raise
    except (Exception, KeyboardInterrupt) as error:
        status = _report(error, options.home if options else None)
        _flush_or_drop()
        return status


@contextmanager
def _ctrl_c_raises() -> Iterator[None]:
    """Let Ctrl-C raise KeyboardInterrupt in the block, where `__main__` has it end the process."""
    before = signal.getsignal(signal.SIGINT)
    if not callable(before) or before is signal.default_int_handler:
        yield
        return
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _check_working_folder() -> None:
    """Raise Refused where the working folder was removed, or may not be entered."""
    try:
        os.stat(os.path.join(os.getcwd(), "."))
    except OSError as error:
        reason = error.strerror
        raise Refused(f"the working folder cannot be used ({reason}): cd to another", 2) from error


def _report(error: BaseException, home: str | None) -> int:
    """Say in one line why a command did not end well. Returns the exit status."""
    if _was_interrupted(error):
        _say("interrupted")
        return 130
    if isinstance(error, UserError):
        _say("\n".join(one_line(line, 2000) for line in f"error: {error}".splitlines()))
        return error.status
    if isinstance(error, BrokenPipeError) and _stdout_is_closed():
        return 1
    if isinstance(error, OSError) and error.errno in NO_ROOM:
        where = f" {error.filename}" if error.filename else ""
        _say(f"error: cannot write{where}: {error.strerror}; free some space")
        return 1
    log = _write_traceback(error, home)
    if isinstance(error, OSError) and error.strerror and error.filename:
        _say(f"error: {one_line(str(error.filename))}: {error.strerror} (details: {log})")
    elif isinstance(error, MemoryError):
        _say(f"error: not enough memory (details: {log})")
    else:
        what = one_line(f"{type(error).__name__}: {error}", 300)
        _say(f"error: unexpected {what}: please report it with {log}")
    return 1


def _was_interrupted(error: BaseException | None) -> bool:
    """Return whether Ctrl-C is behind an exception; numpy and others raise their own from it."""
    seen: list[BaseException] = []
    while error is not None and error not in seen:
        if isinstance(error, KeyboardInterrupt):
            return True
        seen.append(error)
        error = error.__cause__ or error.__context__
    return False


def _write_traceback(error: BaseException, home: str | None) -> str:
    """Write the traceback of an error into a file of its own. Returns the file's name."""
    text = "".join(traceback.format_exception(error))
    folders = [tempfile.gettempdir()]
    with suppress(HomeError):
        folders.insert(0, str(find_home(home).logs))
    for folder in filter(os.path.isdir, folders):
        with suppress(OSError):
            handle, name = tempfile.mkstemp(".log", "error-", folder)
            with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace") as file:
                file.write(text)
            return name
    return f"no log file: none can be written into {folders[-1]}"


def _say(text: str) -> None:
    """Print a message to standard error, where it can be printed."""
    with suppress(OSError):
        print(printable(text), file=sys.stderr, flush=True)


def _flush_or_drop() -> None:
    """Flush standard output. Where that fails, drop the rest: Python flushes again at its end, and
    would print a traceback."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _stdout_is_closed() -> bool:
    """Return whether the program that reads standard output has closed it, as `| head` does."""
    try:
        number = sys.stdout.fileno()
    except OSError:  # redirected within Python
        return False
    poll = select.poll()
    poll.register(number, 0)  # errors are reported without being asked for
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))


class _Parser(argparse.ArgumentParser):
    """Prints a wrong command line as one line, with the nearest command."""

    def error(self, message: str) -> NoReturn:
        choice = re.search(r"COMMAND: invalid choice: (['\"])(.*)\1 \(choose", message)
        if choice:
            message = f"no command {choice[2]!r}{suggestion(choice[2], COMMANDS)}"
        _say(f"error: {one_line(message)}; see python -m orchestrator --help")
        sys.exit(2)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python -m orchestrator",
        description="One study file in, trained models and one comparison out.",
        allow_abbrev=False,
    )
    _add_global_flags(parser, None)
    commands = parser.add_subparsers(metavar="COMMAND", dest="command", required=True)
    for name, (_, flags, about) in COMMANDS.items():
        command = commands.add_parser(name, help=about, description=about, allow_abbrev=False)
        for flag in flags.split():
            spelling, settings = _FLAGS[flag]
            command.add_argument(spelling, **settings)
        _add_global_flags(command, argparse.SUPPRESS)  # else None would replace a value given
        # before COMMAND
    return parser


def _add_global_flags(parser: argparse.ArgumentParser, default: str | None) -> None:
    """Add the flags that every command has, before its name or after it."""
    for flag, metavar, about in (
        ("--home", "DIR", "folder of stored state (default: ORCHESTRATOR_HOME)"),
        ("--mlflow", "FILE", "MLflow settings (default: ./mlflow.yaml)"),
    ):
        parser.add_argument(flag, metavar=metavar, default=default, help=about)
