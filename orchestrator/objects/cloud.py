"""Objects in S3, or in the memory of this process, by the library obstore.

Credentials, region and endpoint have the names that the tools of AWS use (AWS_ACCESS_KEY_ID,
AWS_SECRET_ACCESS_KEY, AWS_REGION, AWS_ENDPOINT_URL ...). They are read from the environment of the
process that asks, and never written.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import IO, Any

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, PreconditionError
from obstore.store import MemoryStore, S3Store

from orchestrator.config.errors import one_line
from orchestrator.objects.contract import Changed, Found, ObjectsError, Sink

_PATIENCE = timedelta(seconds=60)  # how long a request is tried again while the store is away
TRIES = 12
_MOST_DELETED = 1000  # objects in one request


class CloudObjects:
    """Objects of a bucket below a prefix."""

    def __init__(self, store: S3Store | MemoryStore, address: str) -> None:
        """address: as errors name it."""
        self._store, self.address = store, address

    def get(self, name: str) -> Found | None:
        with self._asked(name):
            try:
                answer = obstore.get(self._store, name)
                return Found(bytes(answer.bytes()), str(answer.meta["e_tag"]))
            except FileNotFoundError as error:
                _check_bucket(error)
                return None

    def download(self, name: str, file: Sink) -> bool:
        with self._asked(name):
            try:
                answer = obstore.get(self._store, name)
            except FileNotFoundError as error:
                _check_bucket(error)
                return False
            for part in answer.stream():
                file.write(bytes(part))
            return True

    def put(self, name: str, content: bytes | IO[bytes]) -> None:
        with self._asked(name):
            obstore.put(self._store, name, content)

    def put_if_absent(self, name: str, content: bytes) -> str:
        return self._put_if(name, content, "create")

    def put_if_unchanged(self, name: str, content: bytes, version: str) -> str:
        return self._put_if(name, content, {"e_tag": version})

    def _put_if(self, name: str, content: bytes, mode: Any) -> str:
        with self._asked(name):
            try:
                return str(obstore.put(self._store, name, content, mode=mode)["e_tag"])
            except (AlreadyExistsError, PreconditionError) as error:
                raise Changed(name) from error

    def list(self, folder: str) -> list[str]:
        with self._asked(folder):
            pages = obstore.list(self._store, folder)
            return sorted(str(item["path"]) for page in pages for item in page)

    def delete(self, names: Iterable[str]) -> None:
        left = list(names)
        while left:
            now, left = left[:_MOST_DELETED], left[_MOST_DELETED:]
            with self._asked(now[0]):
                try:
                    obstore.delete(self._store, now)
                except FileNotFoundError as error:
                    _check_bucket(error)

    @contextmanager
    def _asked(self, name: str) -> Iterator[None]:
        """Raise ObjectsError for what the library raises in the block."""
        try:
            yield
        except (BaseError, OSError) as error:
            raise ObjectsError(f"the store {self.address} {_why(error)} ({name})") from error


def open_bucket(bucket: str, prefix: str, address: str, tries: int = TRIES) -> CloudObjects:
    """Open a prefix of an S3 bucket, which need not hold anything yet. Nothing is asked. tries: of
    a request while the store is away."""
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""
    options: dict[str, Any] = {"endpoint": endpoint} if endpoint else {}
    if not any(os.environ.get(name) for name in ("AWS_REGION", "AWS_DEFAULT_REGION")):
        options["region"] = "us-east-1"
    store = S3Store(
        bucket,
        prefix=prefix or None,
        client_options={"allow_http": endpoint.startswith("http://")},
        retry_config={"max_retries": tries, "retry_timeout": _PATIENCE},
        **options,
    )
    return CloudObjects(store, address)


def open_memory() -> CloudObjects:
    """Return a new store in the memory of this process."""
    return CloudObjects(MemoryStore(), "memory")


def _check_bucket(error: FileNotFoundError) -> None:
    """Raise the error again where it is the bucket that is missing."""
    if "NoSuchBucket" in str(error):
        raise error


_KNOWN = {
    "NoSuchBucket": "has no such bucket: make it first",
    "InvalidAccessKeyId": "does not know AWS_ACCESS_KEY_ID",
    "SignatureDoesNotMatch": "refuses AWS_SECRET_ACCESS_KEY",
    "NotImplemented": "knows no conditional puts",
    "403 Forbidden": "refuses this (403): AWS_ACCESS_KEY_ID may not do it",
    "169.254.169.254": "has no login here: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    "error sending request": "does not answer",
}


def _why(error: BaseException) -> str:
    """Return in a few words what an error of the library says."""
    text = str(error)
    known = next((words for sign, words in _KNOWN.items() if sign in text), None)
    return known or f"fails: {one_line(text.partition('Debug source')[0], 200)}"
