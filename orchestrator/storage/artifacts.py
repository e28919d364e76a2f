"""What a producer has made and kept so far: files in a Run's folder, each image's with a note.

<store>/<key>/produced/{0013.json, 0013.png, 0013.done}
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orchestrator.storage.files import read_json
from orchestrator.storage.manifest import describe

PRODUCED, NOTE = "produced", ".done"  # the folder, and how a note ends


def produced(run: Path) -> dict[str, dict[str, Any]]:
    """Name of an image → its note, of those whose files all have the size and sha256 that the note
    names. run: the Run's folder."""
    found = {}
    for path in sorted((run / PRODUCED).glob(f"*{NOTE}")):
        note = read_json(path)
        if note and is_noted(path.parent, note):
            found[path.name.removesuffix(NOTE)] = note
    return found


def is_noted(folder: Path, note: Mapping[str, Any]) -> bool:
    """Whether a folder has all files of a note as they were."""
    return all(
        (folder / file).is_file() and describe(folder / file) == wanted
        for file, wanted in note["files"].items()
    )
