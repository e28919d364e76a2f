"""Reads and writes one message, as its file in the home holds it.

<home>/notices/<id>.json     the message, where it goes, and what has been sent
<home>/notices/<id>.lock     held by the process that sends it

No file holds a secret: it has the names of the environment variables that do.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orchestrator.storage.files import read_json

log = logging.getLogger(__name__)
FOLDER = "notices"  # of a home
WAITING, SENT, GIVEN_UP = "waiting", "sent", "given up"


@dataclass(frozen=True)
class Note:
    """Holds one message. id: names it; a receiver can tell by it that a message came twice. event:
    done, failed, stalled or collapsed. channels: where it goes → waiting, sent or given up."""

    id: str
    event: str
    study: str
    title: str
    text: str
    settings: Mapping[str, Any]  # as plain data
    channels: dict[str, str] = field(default_factory=dict)
    tries: int = 0

    @property
    def is_waiting(self) -> bool:
        return WAITING in self.channels.values()


def waiting(home: Path) -> list[Path]:
    """Return the files of the messages that are not sent yet."""
    found = []
    for path in sorted((home / FOLDER).glob("*.json")):
        note = read_note(path)
        if note is not None and note.is_waiting:
            found.append(path)
    return found


def read_note(path: Path) -> Note | None:
    """Return a message; None where its file is gone or damaged, which is said in one line."""
    kept = read_json(path)
    try:
        return Note(**kept) if kept else None
    except TypeError:
        log.warning("notify: %s is damaged", path)
        return None
