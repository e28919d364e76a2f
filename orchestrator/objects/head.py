"""Reads and changes the head of a key: the one object that says who owns it and what counts.

<key>/head.json              owner, number of the newest attempt, name of a file → its object
<key>/<attempt>/<sha256>     the content of a file, put before a head names it

Whoever changes anything swaps the head on the condition that it is unchanged. So of two writers one
wins, and the other one reads again what holds now. A file that no head names does not exist.
"""

import json
import secrets
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace

from pydantic import TypeAdapter, ValidationError

from orchestrator.objects.contract import Changed, Objects, ObjectsError


@dataclass(frozen=True)
class StoredFile:
    """Names a file of a Run in the store. attempt: that has put it."""

    attempt: int
    bytes: int
    sha256: str

    def object(self, key: str) -> str:
        """Return the name of the object that holds it."""
        return f"{key}/{self.attempt}/{self.sha256}"


@dataclass(frozen=True)
class Owner:
    """Says who may have a key trained. id: of one claim; home: of the driver; beat: a number that
    the owner changes as long as it lives; words: for those who wait."""

    id: str
    home: str
    words: str
    beat: int = 0


@dataclass(frozen=True)
class Head:
    """attempt: the newest one: an older one may not change files any more; committed: the attempt
    that has last changed them; owner: None where the key is free; write: of this very content."""

    attempt: int = 0
    committed: int = 0
    owner: Owner | None = None
    files: dict[str, StoredFile] = field(default_factory=dict)
    write: str = ""


_FORM: "TypeAdapter[Head]" = TypeAdapter(Head)


def head_name(key: str) -> str:
    """Return the name of a key's head."""
    return f"{key}/head.json"


def read_head(objects: Objects, key: str) -> Head:
    """Return the head of a key; an empty one where there is none. Raises ObjectsError."""
    return _read(objects, key)[0]


def _read(objects: Objects, key: str) -> tuple[Head, str | None]:
    found = objects.get(head_name(key))
    if found is None:
        return Head(), None
    try:
        return _FORM.validate_json(found.content), found.version
    except ValidationError as error:
        raise ObjectsError(f"the store {objects.address}: {head_name(key)} is damaged") from error


def change_head(objects: Objects, key: str, change: Callable[[Head], Head]) -> tuple[Head, Head]:
    """Change the head of a key. Returns it as it was and as it is now.

    change: from what holds to what shall hold. It is called again when another writer was quicker;
    it may raise, and nothing is changed then. It must give the same when it is called on what it
    has made: an answer that was lost on the way looks like another writer.
    """
    while True:
        head, version = _read(objects, key)
        changed = replace(change(head), write=secrets.token_hex(8))
        content = json.dumps(asdict(changed)).encode()
        try:
            if version is None:
                objects.put_if_absent(head_name(key), content)
            else:
                objects.put_if_unchanged(head_name(key), content, version)
        except Changed:
            if read_head(objects, key).write != changed.write:
                continue
        return head, changed
