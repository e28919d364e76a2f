"""Note what happens to a study, once, and begin to send it."""

import hashlib
import logging
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import trainables
from orchestrator.config.mlflow_settings import NotifySettings
from orchestrator.notify.note import FOLDER, WAITING, Note, waiting
from orchestrator.storage.files import read_json, write_json
from trainables.config import as_plain

log = logging.getLogger(__name__)
_SETTINGS = "settings"  # of the studies, beside the messages: for those who find a dead driver


class Notifier:
    """Notes what happens to one study, and has it sent by a process of its own.

    Nothing here waits for a receiver, and nothing raises: what cannot be noted or sent is one line
    of warning.
    """

    def __init__(self, home: Path, study: str, settings: NotifySettings | None) -> None:
        """home: its folder; settings: None where nobody is to be told."""
        self._folder, self._study, self.settings = home / FOLDER, study, settings
        self._sending: list[subprocess.Popen[bytes]] = []  # kept, so that ended ones are reaped

    @classmethod
    def of_study(cls, home: Path, study: str) -> "Notifier":
        """Return the notifier that the study's last driver had."""
        kept = read_json(home / FOLDER / f"{study}.{_SETTINGS}")
        return cls(home, study, NotifySettings(**kept) if kept else None)

    def remember(self) -> None:
        """Store the settings for `of_study`."""
        path = self._folder / f"{self._study}.{_SETTINGS}"
        try:
            if self.settings is None:
                path.unlink(missing_ok=True)
                return
            self._folder.mkdir(parents=True, exist_ok=True)
            write_json(path, as_plain(self.settings), 0o600)
        except OSError as error:
            log.warning("notify: %s cannot be written: %s", path, error)

    def tell(self, event: str, subject: str, title: str, text: str = "") -> None:
        """Note that something has happened, unless it is noted already, and begin to send it.

        subject: what it happened to, such as a job or a Run's key: of one event and subject there
        is one message.
        """
        if self.settings is None or event not in self.settings.on:
            return
        digest = hashlib.sha256("\0".join([self._study, event, subject]).encode()).hexdigest()[:20]
        path = self._folder / f"{digest}.json"
        settings = as_plain(self.settings)
        channels = dict.fromkeys(channel_names(self.settings), WAITING)
        note = Note(digest, event, self._study, title, text, settings, channels)
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            os.close(os.open(path.with_suffix(".lock"), os.O_CREAT | os.O_EXCL, 0o600))
        except FileExistsError:
            if path.exists():  # else a process died before it wrote the message
                return
        except OSError as error:
            log.warning("notify: the message %r cannot be noted: %s", title, error)
            return
        try:
            write_json(path, asdict(note), 0o600)
        except OSError as error:
            log.warning("notify: the message %r cannot be noted: %s", title, error)
            return
        process = send_waiting(self._folder.parent)
        self._sending = [one for one in self._sending if one.poll() is None]
        self._sending += [process] if process else []


def channel_names(settings: NotifySettings) -> list[str]:
    """Return the channels of some settings: `webhook NAME`, `mail`, `apprise NAME`."""
    names = [f"webhook {name}" for name in settings.webhook]
    names += ["mail"] if settings.mail else []
    return [*names, *(f"apprise {name}" for name in settings.apprise)]


def send_waiting(home: Path) -> subprocess.Popen[bytes] | None:
    """Start a process that sends what waits, and do not wait for it: it goes on when this process
    ends. Returns it; None where nothing waits."""
    try:
        if not waiting(home):
            return None
        root = str(Path(trainables.__file__).parents[1])  # the very code that this process runs
        paths = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "orchestrator.notify.deliver", str(home)],
            env=os.environ | {"PYTHONPATH": paths},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )
    except OSError as error:
        log.warning("notify: what waits is not sent now: %s", error)
        return None
