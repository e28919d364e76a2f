"""Send the messages of a home that wait, in a process of its own.

    python -m orchestrator.notify.deliver HOME

It ends within two minutes, whatever the receivers do. A message that could not be sent waits for
the next one of these processes; after five tries it is given up.
"""

import fcntl
import logging
import os
import signal
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

from orchestrator.config.mlflow_settings import NotifySettings
from orchestrator.notify.channels import NotSent, send
from orchestrator.notify.note import GIVEN_UP, SENT, WAITING, Note, read_note, waiting
from orchestrator.storage.files import write_json

log = logging.getLogger("orchestrator.notify")
MOST_TRIES = 5
_DEADLINE_SECONDS = 120
_PAUSES = (0.0, 2.0, 10.0)  # before each try of this process


def main(home: str) -> int:
    """Send what waits. Returns 0 where all is sent, else 1."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    before = signal.signal(signal.SIGALRM, lambda *_: os._exit(1))
    signal.alarm(_DEADLINE_SECONDS)
    try:
        return 0 if all([deliver(path) for path in waiting(Path(home))]) else 1
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def deliver(path: Path) -> bool:
    """Send one message through every channel that lacks it. Returns whether all have it now; True
    too where another process sends it."""
    with open(path.with_suffix(".lock"), "a", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        note = read_note(path)
        if note is None or not note.is_waiting:
            return True
        errors: dict[str, str] = {}
        for pause in _PAUSES:
            time.sleep(pause)
            errors = {}
            for channel in [name for name, state in note.channels.items() if state == WAITING]:
                error = _send(channel, note)
                if error:
                    errors[channel] = error
                else:  # stored at once: a process that dies now sends nothing twice
                    note = replace(note, channels={**note.channels, channel: SENT})
                    write_json(path, asdict(note), 0o600)
            if not errors:
                return True
        tries = note.tries + 1
        ended = dict.fromkeys(errors, GIVEN_UP) if tries >= MOST_TRIES else {}
        write_json(path, asdict(replace(note, tries=tries, channels=note.channels | ended)), 0o600)
    for channel, error in errors.items():
        log.warning("warning: notify: %s: %r was not sent: %s", channel, note.title, error)
    return False


def _send(channel: str, note: Note) -> str:
    """Send a message through a channel. Returns why it was not sent; empty where it was."""
    try:
        send(channel, note, NotifySettings(**note.settings))
    except NotSent as error:
        return str(error)
    except Exception as error:  # of Apprise's many services; its text may hold the address
        return type(error).__name__
    return ""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
