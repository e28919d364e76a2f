"""The folder of a Run in the store: who trains it, how far it is, how it ended, its checkpoints.

<store>/<key>/attempt                           number of the newest attempt
<store>/<key>/.owner                            lock of the process that has the Run trained
<store>/<key>/{epoch_00012, spare_00009}/       checkpoints and the backup copy (see `checkpoints`)
<store>/<key>/progress.json                     how far the running attempt is, seconds old
<store>/<key>/{done,done_copy}.json             the result of a finished Run, twice
<store>/<key>/ended.json                        why the newest attempt ended without a result
<store>/<key>/origin.json                       the MLflow run that holds the training
<store>/<key>/logs/attempt_0001_rank_0.log      what a rank printed and logged (see `run_log`)
<store>/<key>/features/epoch_00001.npz          what plots are drawn from; may be lost
<store>/<key>/predictions/{test.npz, manifest.json}   what was predicted of each test image
<store>/<key>/produced/0013.{json,png,done}     a producer's images, until it has all

`Store` names the folders, `RunFolder` reads one, and `RunWriter` writes one on behalf of an
attempt. Attempts are numbered, and a writer whose number is not the newest is refused: a process
that was thought dead can never write over the work of its successor.
"""

import json
import os
import platform
import re
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from orchestrator.storage import record_shapes
from orchestrator.storage.checkpoints import (
    BACKED_UP_SECONDS,
    FOLDERS,
    Checkpoint,
    Write,
    backup_of,
    copies_of,
    epochs_in,
    folder_of,
    keep_newest,
    keep_weights,
    newest_checkpoint,
    read_checkpoint,
    seems_whole,
    write_checkpoint,
)
from orchestrator.storage.files import (
    Busy,
    lock_file,
    locked,
    read_json,
    replace_folder,
    replacing,
    sync_folder,
    temporary_folder,
    write_json,
)
from orchestrator.storage.manifest import describe, has_its_files, read_manifest, write_manifest
from orchestrator.storage.run_log import named_logs
from trainables.record_files import FEATURES, PREDICTIONS

_KEY = re.compile(r"[0-9a-z_-]{1,64}")
ATTEMPT, _OWNER, _LOCK = "attempt", ".owner", ".lock"
PROGRESS, DONE, _ENDED, _ORIGIN = "progress.json", "done.json", "ended.json", "origin.json"
_RESULTS = (DONE, DONE_COPY := "done_copy.json")  # twice: without it a Run is trained again


class StaleWriter(Exception):
    """A newer attempt trains the Run: this writer must stop."""


class Store:
    """The folders of all Runs, below one root."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def run(self, key: str) -> "RunFolder":
        """Return the folder of a Run, which need not exist. Raises ValueError for no plain word."""
        return RunFolder(self.root, key)


class RunFolder:
    """Reads what the store holds of one Run. Reading needs no lock and changes nothing."""

    def __init__(self, store: Path, key: str) -> None:
        """Raises ValueError where the key is no plain word, which could lead out of the store."""
        if not _KEY.fullmatch(key):
            raise ValueError(f"not a key: {key!r}")
        self.key, self.path = key, store / key

    def acquire(self, holder: str) -> IO[str] | None:
        """Become the only one to train the Run until the returned file is closed, or this process
        dies; None while another process, or another part of this one, is it.

        holder: a few words for those who wait, such as `study digits`.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        try:
            file = lock_file(self.path / _OWNER, wait=False)
        except Busy:
            return None
        try:
            if (self.path / _OWNER).stat().st_ino != os.fstat(file.fileno()).st_ino:
                raise FileNotFoundError  # `clean` has removed it meanwhile: others lock another
            file.truncate(0)
            file.write(holder)
            file.flush()
        except FileNotFoundError:
            file.close()
            return None
        except OSError:
            file.close()
            raise
        return file

    def owner(self) -> str | None:
        """Return the holder that trains the Run now; None when there is none."""
        try:
            lock_file(self.path / _OWNER, shared=True, wait=False, mode="r").close()
        except FileNotFoundError:
            return None
        except Busy:
            return (self.path / _OWNER).read_text(encoding="utf-8") or "another process"
        return None

    def begin_attempt(self, begun: int | None = None) -> int:
        """Begin the next attempt. Returns its number, from 1; older writers are refused now. begun:
        the number of one that a store has begun; raises StaleWriter where a newer one is here."""
        self.path.mkdir(parents=True, exist_ok=True)
        with locked(self.path / _LOCK):
            attempt = self.attempt() + 1 if begun is None else begun
            if (newest := self.attempt()) > attempt:
                raise StaleWriter(f"attempt {attempt} of {self.key}: attempt {newest} is here")
            write_json(self.path / ATTEMPT, {"attempt": attempt})
        return attempt

    def attempt(self) -> int:
        """Return the newest attempt's number, 0 before the first; where its file is damaged, the
        highest number in any other file of the Run: none is given twice."""
        if record := read_json(self.path / ATTEMPT, record_shapes.AttemptRecord):
            return int(record["attempt"])
        if not self.path.is_dir():
            return 0
        names = (PROGRESS, *_RESULTS, _ENDED)
        records = [read_json(self.path / name, record_shapes.AnyRecord) for name in names]
        records += [read_manifest(path) for path in self.path.glob("epoch_*")]
        numbers = [int(record.get("attempt", 0)) for record in records if record]
        return max([0, *numbers, *(attempt for attempt, _ in self.logs())])

    def writer(self, attempt: int) -> "RunWriter":
        """Return the writer of an attempt."""
        return RunWriter(self, attempt)

    def progress(self) -> dict[str, Any] | None:
        """Return what the running attempt last reported: the fields of `Progress`, and its attempt,
        time (s since 1970), host and pid."""
        record = read_json(self.path / PROGRESS, record_shapes.ProgressRecord)
        return None if record is None else record_shapes.current_progress(record)

    def history(self) -> list[dict[str, float]]:
        """Return the figures of every epoch that is done, one entry an epoch; empty where no
        checkpoint verifies."""
        result = self.result()
        if result is not None:
            return list(result["history"])
        newest = self.newest()
        return list(newest.info["history"]) if newest else []

    def result(self) -> dict[str, Any] | None:
        """Return the result of a finished Run; None also when its best checkpoint is gone."""
        copies = (read_json(self.path / name, record_shapes.DoneRecord) for name in _RESULTS)
        done = next((copy for copy in copies if copy is not None), None)
        if done is None or not seems_whole(self.path, int(done["best_epoch"])):
            return None
        return done

    def ended(self, job: str) -> tuple[str, str] | None:
        """Return the state and reason of the newest attempt, if it was this job's and has ended
        without a result.

        job: id of the Ray job whose driver or trial began the attempt. Earlier versions wrote it as
        `submission`, of a Run that no search tried as the submission's MLflow run id.
        """
        note = read_json(self.path / _ENDED, record_shapes.EndedRecord) or {}
        if note.get("job", note.get("submission")) != job or note.get("attempt") != self.attempt():
            return None
        return str(note["state"]), str(note["reason"])

    def origin(self) -> dict[str, Any] | None:
        """Return the MLflow run (`run_id` at `uri`) that holds the training, if any."""
        return read_json(self.path / _ORIGIN, record_shapes.OriginRecord)

    def set_origin(self, origin: dict[str, str]) -> None:
        """Write what `origin` reads."""
        self.path.mkdir(parents=True, exist_ok=True)  # there may have been no attempt yet
        write_json(self.path / _ORIGIN, origin)

    def log_file(self, attempt: int, rank: int) -> Path:
        """Return where a rank of an attempt logs; its folder is made."""
        folder = self.path / "logs"
        folder.mkdir(parents=True, exist_ok=True)
        return folder / f"attempt_{attempt:04d}_rank_{rank}.log"

    def logs(self) -> dict[tuple[int, int], Path]:
        """Return (attempt, rank) → log file, oldest attempt first."""
        return named_logs(self.path / "logs")

    def features(self) -> Path | None:
        """Return the folder of arrays that plots are drawn from, if there is one."""
        return self.path / FEATURES if (self.path / FEATURES).is_dir() else None

    def epochs(self) -> list[int]:
        """Return the epochs that have a checkpoint folder, verified or not, ascending."""
        return epochs_in(self.path)

    def load(self, epoch: int) -> Checkpoint | None:
        """Return the checkpoint of an epoch, verified, else its backup copy, else None and a
        warning."""
        return read_checkpoint(self.path, epoch)

    def newest(self) -> Checkpoint | None:
        """Return the newest checkpoint that verifies and still has its training state."""
        return newest_checkpoint(self.path)

    def best(self) -> Checkpoint | None:
        """Return the chosen checkpoint of a finished Run, verified."""
        result = self.result()
        return self.load(result["best_epoch"]) if result else None

    def forget(self) -> None:
        """Remove every checkpoint and the result, so that the Run is trained anew."""
        for name in _RESULTS:
            (self.path / name).unlink(missing_ok=True)
        for path in self.path.glob(FOLDERS):
            shutil.rmtree(path)


class RunWriter:
    """Writes the folder of a Run on behalf of one attempt. Every method but `end` raises
    StaleWriter when a newer attempt has begun, and changes nothing then."""

    def __init__(self, run: RunFolder, attempt: int) -> None:
        self.run, self.attempt = run, attempt
        self._earlier: dict[str, Any] | None = None  # progress before this attempt's first

    def save(self, epoch: int, files: Mapping[str, Write], info: Mapping[str, Any]) -> Checkpoint:
        """Write the checkpoint of an epoch. files: name → function that writes it to a path; info:
        JSON to be read with it."""
        return self._place(folder_of(self.run.path, epoch), epoch, files, info)

    def start_anew(self) -> None:
        """Remove what no training can go on from, such as what is left of a damaged result."""
        with self._fenced():
            self.run.forget()

    def back_up(self, epoch: int) -> None:
        """Copy a checkpoint without its optimizer state, and remove the copy of any other: of the
        best epoch, once it is not the newest. Does nothing where it is damaged: `load` warns."""
        backup = backup_of(self.run.path, epoch)
        if not has_its_files(backup):
            source = self.run.load(epoch)
            if source is None:
                return
            self._place(backup, epoch, copies_of(source), source.info)
        with self._fenced():
            for other in self.run.path.glob("spare_*"):
                if other != backup:
                    shutil.rmtree(other)

    def prune(self, best: int, keep: int = 2) -> None:
        """Keep the newest `keep` checkpoints whole and the weights of the best one; remove the
        rest, and what killed writers have left."""
        with self._fenced():
            keep_newest(self.run.path, best, keep)

    def put_optional(self, name: str, write: Write) -> None:
        """Write a file below the Run's folder that may be lost: whole or absent, and not synced;
        predictions with a manifest."""
        path = self.run.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path, self.attempt) as temporary:
            write(temporary)
            self._check_newest()
        if name == PREDICTIONS:
            write_manifest(path.parent, {"files": {path.name: describe(path)}})

    def report(self, progress: Mapping[str, Any]) -> None:
        """Write how far the Run is, for those who watch; not synced."""
        self._check_newest()
        who = {"time": time.time(), "host": platform.node(), "pid": os.getpid()}
        record = {"attempt": self.attempt, **who, **self._noted(progress)}
        with replacing(self.run.path / PROGRESS, self.attempt) as temporary:
            temporary.write_text(json.dumps(record), encoding="utf-8")

    def finish(self, result: Mapping[str, Any]) -> None:
        """Write the result of the finished Run, which its MLflow run is made from."""
        with self._fenced():
            written = {"attempt": self.attempt, **self._noted(result)}
            for name in _RESULTS:
                write_json(self.run.path / name, written)

    def shrink(self, best: int, seconds: float) -> None:
        """Keep of a finished Run the weights of its best and of its last epoch, and a backup copy
        of the best where training took so many seconds that it must not be lost."""
        backup = seconds >= BACKED_UP_SECONDS
        if backup:
            self.back_up(best)
        with self._fenced():
            keep_weights(self.run.path, best, backup)

    def _noted(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """Return a record whose facts say what is not as in earlier attempts."""
        if self._earlier is None:
            self._earlier = self.run.progress() or {}
        facts = record_shapes.with_changes(self._earlier, record.get("facts", {}), self.attempt)
        return {**record, "facts": facts}

    def end(self, state: str, reason: str, job: str) -> None:
        """Write how the attempt has ended without a result, until MLflow has heard of it.

        state: FAILED or KILLED. job: as in `RunFolder.ended`. It is not refused when a newer
        attempt has begun: `ended` passes over it then.
        """
        note = {"attempt": self.attempt, "state": state, "reason": reason, "job": job}
        write_json(self.run.path / _ENDED, note)

    def _place(
        self, final: Path, epoch: int, files: Mapping[str, Write], info: Mapping[str, Any]
    ) -> Checkpoint:
        """Write a checkpoint under a temporary name, sync it, and rename it to `final`."""
        with temporary_folder(final, self.attempt) as temporary:
            sums = write_checkpoint(temporary, epoch, self.attempt, files, info)
            with self._fenced():
                replace_folder(temporary, final)
        sync_folder(final.parent)
        return Checkpoint(final, epoch, info, sums)

    @contextmanager
    def _fenced(self) -> Iterator[None]:
        """Keep other attempts from beginning. Raises StaleWriter when one has begun."""
        with locked(self.run.path / _LOCK):
            self._check_newest()
            yield

    def _check_newest(self) -> None:
        if (newest := self.run.attempt()) != self.attempt:
            name = f"attempt {self.attempt} of {self.run.key}"
            raise StaleWriter(f"{name}: attempt {newest} has taken over")
