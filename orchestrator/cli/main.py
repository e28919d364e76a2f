"""Parses `python -m orchestrator COMMAND` and calls the function of the command.

To add a command: one line in COMMANDS and a function of that name in the module it names.
Exit status: 0 success, 1 something failed, 2 the study or the command line is wrong and nothing
was started, 130 interrupted with Ctrl-C.
"""

import argparse
import gc
import importlib
import os
import re
import select
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from orchestrator.config.errors import UserError, suggestion
from orchestrator.storage.files import NO_ROOM

# Command → module of this package (imported when called: torch takes seconds, and `status` needs
# none), flags out of _FLAGS, help text. The module has a function of the command's name.
COMMANDS = {
    "submit": ("submit", "study set data address json", "run what is not done, then compare"),
    "plan": ("plan", "study set data json", "show what submit would run; start nothing"),
    "status": ("status", "study? json", "show the state of every study, or all details of one"),
    "compare": ("status", "study json", "print the table that answers the study's question"),
    "stop": ("runs", "study", "stop a study; submit it again to go on"),
    "logs": ("runs", "run", "print the log of a Run, also of a failed one"),
    "predict": (
        "predict",
        "run images out",
        "predict images with the model of a Run",
    ),
    "clean": ("services", "dry_run", "remove stored files that no study's newest plan needs"),
    "up": ("services", "", "start Ray and MLflow on this machine, if they do not run yet"),
    "down": ("services", "", "stop the Ray and MLflow that belong to this home"),
    "describe": ("plan", "name? markdown json", "print every key of a study file: NAME's, or all"),
    "studies": ("status", "", "list the built-in studies"),
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
    "run": ("run", {"metavar": "RUN",
                    "help": "study/label/seed, the start of a key, or an MLflow run id"}),
    "images": ("images", {"metavar": "IMAGE", "nargs": "+", "help": "image file of any size"}),
    "out": ("--out", {"metavar": "DIR", "help": "folder for masks, overlays and tables"}),
    "dry_run": ("--dry-run", {"action": "store_true", "help": "list the files, remove nothing"}),
    "name?": ("name", {"metavar": "NAME", "nargs": "?", "help": "such as classify, csv, search"}),
    "markdown": ("--markdown", {"action": "store_true", "help": "print the whole reference"}),
    "json": ("--json", {"action": "store_true", "help": "print JSON on standard output"}),
}  # fmt: skip


def _handler(command: str) -> Callable[[argparse.Namespace], int]:
    """Import the function of a command.

    Python's garbage collector is off meanwhile: imports leave no garbage, and searching for it
    takes a seventh of the time.
    """
    gc.disable()
    try:
        module = importlib.import_module(f"orchestrator.cli.{COMMANDS[command][0]}")
        handler: Callable[[argparse.Namespace], int] = getattr(module, command)
        return handler
    finally:
        gc.enable()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command. Returns the exit status; prints every UserError as one line."""
    options = _parser().parse_args(arguments)
    handler = _handler(options.command)
    try:
        status = handler(options)
        sys.stdout.flush()
        return status
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.status
    except BrokenPipeError:
        if not _stdout_is_closed():
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        where = f" {error.filename}" if error.filename else ""
        print(f"error: cannot write{where}: {error.strerror}; free some space", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def _stdout_is_closed() -> bool:
    """Return whether the program that reads standard output has closed it, as `| head` does."""
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)  # errors are reported without being asked for
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))


class _Parser(argparse.ArgumentParser):
    """Prints a wrong command line as one line, with the nearest command."""

    def error(self, message: str) -> NoReturn:
        choice = re.search(r"COMMAND: invalid choice: (['\"])(.*)\1 \(choose", message)
        if choice:
            message = f"no command {choice[2]!r}{suggestion(choice[2], COMMANDS)}"
        print(f"error: {message}; see python -m orchestrator --help", file=sys.stderr)
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
