"""Wait for a store that is away for a while."""

import logging
import time
from collections.abc import Callable
from typing import TypeVar

from orchestrator.objects.contract import ObjectsError

log = logging.getLogger("orchestrator")
_AWAY_SECONDS = 600.0
_PAUSE_SECONDS = 1.0
Answer = TypeVar("Answer")


def patiently(ask: Callable[[], Answer], seconds: float = _AWAY_SECONDS) -> Answer:
    """Return what `ask` returns, which is tried again for so long while the store is away. Raises
    its ObjectsError then."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return ask()
        except ObjectsError as error:
            if time.monotonic() > deadline:
                raise
            log.warning("%s: trying again", error)
        time.sleep(_PAUSE_SECONDS)
