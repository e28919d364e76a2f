"""Checks a trainable of your own: `check_trainable("my_module:MyTrainable")`.

It is built, trained for a step, evaluated, resumed, and trained by two processes, on tiny data:
some 20 s on a CPU. The first fault of each part is told in words.
"""

import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from trainables.checking.faults import Broken
from trainables.checking.ranks import check_ranks
from trainables.checking.resume import check_resume
from trainables.checking.steps import check_building, check_evaluation, check_loss
from trainables.checking.tiny_data import short_config, tiny_table
from trainables.own_code import contract
from trainables.tasks.registry import TRAINABLES


def check_trainable(
    name: str,
    settings: Mapping[str, Any] | None = None,
    tell: Callable[[str], object] = lambda line: None,
) -> list[str]:
    """Check a trainable. Returns what is wrong, a line each; none: it keeps the contract.

    name: `module:Name`, which can be imported, or a built-in one; settings: keys of its
    configuration, beside the short one that is used; tell: is called with a line for each part that
    is right. Raises what importing the module raises.
    """
    kind = TRAINABLES[name]
    if faults := contract.faults(kind, name):
        return faults
    tell("its form: attributes and methods")
    with tempfile.TemporaryDirectory() as folder:
        try:
            config = short_config(kind, settings or {})
        except Broken as error:
            return [str(error)]
        table = tiny_table(kind.NEEDS, Path(folder))
        parts: tuple[Callable[[], str], ...] = (
            partial(check_building, kind, config, table),
            partial(check_loss, kind, config, table),
            partial(check_evaluation, kind, config, table),
            partial(check_resume, kind, config, table),
            partial(check_ranks, name, kind, config, table, Path(folder)),
        )
        for check in parts:
            try:
                tell(check())
            except Broken as error:
                faults.append(str(error))
                if check is parts[0]:  # nothing else can be looked at
                    break
    return faults
