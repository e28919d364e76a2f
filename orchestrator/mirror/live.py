"""Passes on what a running attempt says to hosts that do not see its disk: progress and logs.

<key>/<attempt>/progress.json    seconds old
<key>/<attempt>/rank_0.log       what a rank has printed and logged

They may be lost, and nothing goes on from them. An older attempt writes beside a newer one, so its
words are never taken for those of the newer one.
"""

import json
from pathlib import Path
from typing import Any

from orchestrator.objects.contract import Objects
from orchestrator.storage.files import read_json, replacing
from orchestrator.storage.record_shapes import ProgressRecord
from orchestrator.storage.run_records import PROGRESS, RunFolder


class Live:
    """Sends and fetches the progress and the logs of one attempt. Methods raise ObjectsError."""

    def __init__(self, objects: Objects, run: RunFolder, attempt: int) -> None:
        self._objects, self._run, self._attempt = objects, run, attempt
        self._sent: dict[str, object] = {}  # name → what of it was sent

    def send_progress(self, epochs: int) -> None:
        """Send how far the attempt is. epochs: how many the store has: no more are named, for they
        may be trained again."""
        record = read_json(self._run.path / PROGRESS, ProgressRecord)
        if record is None or record["attempt"] != self._attempt:
            return
        record["history"] = [entry for entry in record["history"] if entry["epoch"] <= epochs]
        self._send(PROGRESS, record, json.dumps(record).encode())

    def send_log(self, rank: int) -> None:
        """Send what a rank has said so far."""
        path = self._run.log_file(self._attempt, rank)
        size = path.stat().st_size if path.is_file() else 0
        if size:
            self._send(f"rank_{rank}.log", size, path)

    def _send(self, name: str, state: object, content: bytes | Path) -> None:
        if self._sent.get(name) == state:
            return
        data = content if isinstance(content, bytes) else content.read_bytes()
        self._objects.put(f"{self._run.key}/{self._attempt}/{name}", data)
        self._sent[name] = state

    def fetch_progress(self) -> None:
        """Write how far the attempt is into the folder, unless that knows better."""
        found = self._objects.get(f"{self._run.key}/{self._attempt}/{PROGRESS}")
        if found is None:
            return
        path = self._run.path / PROGRESS
        here = read_json(path, ProgressRecord) or {}
        # both times are of the clock of the same worker, where the attempt is the same
        if _age(json.loads(found.content)) > _age(here):
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path) as temporary:
                temporary.write_bytes(found.content)

    def fetch_logs(self) -> None:
        """Write what the ranks have said into the folder, unless that has more."""
        prefix = f"{self._run.key}/{self._attempt}/rank_"
        names = self._objects.list(prefix.rpartition("/")[0])
        for name in (name for name in names if name.startswith(prefix)):
            rank = int(name.removeprefix(prefix).removesuffix(".log"))
            path = self._run.log_file(self._attempt, rank)
            found = self._objects.get(name)
            if found and len(found.content) > (path.stat().st_size if path.is_file() else 0):
                with replacing(path) as temporary:
                    temporary.write_bytes(found.content)


def _age(record: dict[str, Any]) -> tuple[int, float]:
    return int(record.get("attempt", 0)), float(record.get("time", 0.0))
