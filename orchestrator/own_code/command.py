"""Check own code that a command names, where no study does: `check my_module:MyTrainable`."""

import importlib
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from orchestrator.own_code.items import OwnCodeError, installed_item, item_of
from orchestrator.own_code.study import as_trainable, faults_of
from trainables.own_code import finder
from trainables.own_code.names import module_of


def check_own(
    name: str, code: Sequence[str], settings: Mapping[str, Any], tell: Callable[[str], object]
) -> list[str]:
    """Check that a trainable keeps its contract. Returns what is wrong, a line each.

    name: `module:Name`; code: files and packages as in a study; of a module that they lack, and
    that is not installed, the file in the working folder is taken; settings: keys of the
    trainable's configuration; tell: is called with each part that is right.
    """
    try:
        items = dict(item_of(Path(os.path.realpath(path))) for path in code)
        top = module_of(name).partition(".")[0]
        if top not in items and installed_item(top) is None:
            here = Path.cwd() / top
            beside = here if here.is_dir() else here.with_suffix(".py")
            items |= dict([item_of(beside)])
    except OwnCodeError as error:
        return [str(error)]
    finder.use(finder.sources_in(items))
    if lines := faults_of(name, as_trainable):
        return lines
    checking = importlib.import_module("trainables.checking.check")  # seconds: torch
    found: list[str] = checking.check_trainable(name, settings, tell)
    return found
