"""The images that a producer has finished so far, each with a record that names its files.

<run>/produced/{0013.json, 0013.png, 0013.done}   until the Run is finished
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orchestrator.storage.files import read_json
from orchestrator.storage.manifest import describe

PRODUCED, NOTE = "produced", ".done"  # the folder, and how the name of a record ends


def finished_images(run: Path) -> dict[str, dict[str, Any]]:
    """Name of an image → its record, of the images whose files all have the size and sha256 that
    the record names. run: the Run's folder."""
    records = {}
    for path in sorted((run / PRODUCED).glob(f"*{NOTE}")):
        record = read_json(path)
        if record and has_files_of(path.parent, record):
            records[path.name.removesuffix(NOTE)] = record
    return records


def has_files_of(folder: Path, record: Mapping[str, Any]) -> bool:
    """Return whether a folder has all files of a record, unchanged."""
    return all(
        (folder / file).is_file() and describe(folder / file) == expected
        for file, expected in record["files"].items()
    )
