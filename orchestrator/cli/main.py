"""python -m orchestrator COMMAND: what is there, and which module does it.

Exit status: 0 all went well, 1 something failed, 2 the study or the command line is wrong and
nothing was started.
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

from orchestrator.config.errors import UserError, near
from orchestrator.storage.files import NO_ROOM

# A command's module is imported when it is called: torch takes seconds, and `status` needs none.
_LOOK, _TEND = "orchestrator.cli.status", "orchestrator.cli.runs"
_PLAN, _TRAIN = "orchestrator.cli.plan", "orchestrator.cli.submit"
_USE = "orchestrator.cli.predict"
COMMANDS = {  # name → module, flags, what it does
    "submit": (_TRAIN, "study set data address json", "train what is not done yet, and compare"),
    "plan": (_PLAN, "study set data json", "show what submit would do; starts nothing"),
    "status": (_LOOK, "json", "what runs and what has run"),
    "compare": (_LOOK, "study json", "the table that answers the study's question"),
    "stop": (_TEND, "study", "end a study's job; submitting it again goes on"),
    "logs": (_TEND, "run", "what a Run itself said, also after it died"),
    "predict": (_USE, "run images out", "what a Run's model says of images"),
    "clean": (_TEND, "dry_run", "remove what no study's newest plan needs"),
    "up": (_LOOK, "", "start the local Ray head and MLflow server, or find them"),
    "down": (_LOOK, "", "stop this home's services, and nothing else"),
    "studies": (_LOOK, "", "list the built-in studies"),
    "data": (_PLAN, "study? set data", "list data set types, or describe a study's data"),
}
_FLAGS: dict[str, tuple[str, dict[str, Any]]] = {
    "study": ("study", {"metavar": "STUDY", "help": "a built-in name or a file"}),
    "study?": ("study", {"metavar": "STUDY", "nargs": "?", "help": "a built-in name or a file"}),
    "set": ("--set", {"metavar": "KEY=VALUE", "action": "append", "default": [],
                      "help": "change a value of the study, such as stages.x.config.epochs=5"}),
    "data": ("--data", {"metavar": "DIR", "help": "where the data sets are"}),
    "address": ("--address", {"metavar": "URL", "help": "another Ray cluster's dashboard"}),
    "run": ("run", {"metavar": "RUN", "help": "study/label/seed, start of a key, MLflow's id"}),
    "images": ("images", {"metavar": "IMAGE", "nargs": "+", "help": "an image file of any size"}),
    "out": ("--out", {"metavar": "DIR", "help": "where masks, overlays and tables go"}),
    "dry_run": ("--dry-run", {"action": "store_true", "help": "list it and remove nothing"}),
    "json": ("--json", {"action": "store_true", "help": "JSON on standard output"}),
}  # fmt: skip


def _handler(command: str) -> Callable[[argparse.Namespace], int]:
    """Loaded without a search for garbage: there is none, and it takes a seventh of the time."""
    gc.disable()
    try:
        found: Callable[[argparse.Namespace], int]
        found = getattr(importlib.import_module(COMMANDS[command][0]), command)
        return found
    finally:
        gc.enable()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
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
        if not _reader_is_gone():
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


def _reader_is_gone() -> bool:
    """Whether whoever reads what is said has had enough, such as `| head`."""
    watched = select.poll()
    watched.register(sys.stdout.fileno(), 0)  # of errors it tells without being asked
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in watched.poll(0))


class _Parser(argparse.ArgumentParser):
    """Errors on one line, with the nearest command."""

    def error(self, message: str) -> NoReturn:
        choice = re.search(r"COMMAND: invalid choice: (['\"])(.*)\1 \(choose", message)
        if choice:
            wrong = choice[2]
            message = f"no command {wrong!r}{near(wrong, COMMANDS)}"
        print(f"error: {message}; see python -m orchestrator --help", file=sys.stderr)
        sys.exit(2)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python -m orchestrator",
        description="One study file in, trained models and one comparison out.",
        allow_abbrev=False,
    )
    _add_places(parser, None)
    commands = parser.add_subparsers(metavar="COMMAND", dest="command", required=True)
    for name, (_, flags, about) in COMMANDS.items():
        command = commands.add_parser(name, help=about, description=about, allow_abbrev=False)
        for flag in flags.split():
            spelled, settings = _FLAGS[flag]
            command.add_argument(spelled, **settings)
        _add_places(command, argparse.SUPPRESS)  # else it would undo what stands before COMMAND
    return parser


def _add_places(parser: argparse.ArgumentParser, default: str | None) -> None:
    """What every command has, before its name or after it."""
    for flag, metavar, about in (
        ("--home", "DIR", "where state lives (ORCHESTRATOR_HOME)"),
        ("--mlflow", "FILE", "instead of ./mlflow.yaml"),
    ):
        parser.add_argument(flag, metavar=metavar, default=default, help=about)
