"""Finds the files that a CSV list names: with or without folder and ending, as other programs
write them."""

import os
import re
from pathlib import Path, PurePosixPath

from trainables.layouts.folders import has_image_ending, is_litter
from trainables.layouts.split_names import part_of

_DRIVE = re.compile(r"[A-Za-z]:")  # of Windows


class FilesBeside:
    """Finds the files around a CSV file by the names that its rows may give them."""

    def __init__(self, file: Path) -> None:
        self._folder = file.parent
        self._stem = file.stem
        self._listed: dict[str, dict[str, list[str]]] = {}  # folder → stem → files
        self._others: list[str] | None = None

    def leads_out(self, name: str) -> bool:
        """Return whether a name leads out of the folder of the CSV file."""
        path = PurePosixPath(self._tidy(name))
        return path.is_absolute() or ".." in path.parts or bool(_DRIVE.match(name))

    def find(self, name: str) -> list[str]:
        """Return the files of a name, relative to the folder: one if all is well.

        They lie in the folder of the CSV file, else in the one that is named like it, else in the
        others beside it, but not in those of another split. An ending may be missing.
        """
        tidy = self._tidy(name)
        for place in ("", self._stem):
            if found := self._in(place, tidy):
                return found
        return [path for place in self._other_folders() for path in self._in(place, tidy)]

    def _tidy(self, name: str) -> str:
        if "\\" in name and not os.path.isfile(os.path.join(self._folder, name)):
            name = name.replace("\\", "/")  # written on Windows
        return str(PurePosixPath(name))  # "./a//b.jpg" is a/b.jpg

    def _in(self, place: str, tidy: str) -> list[str]:
        path = os.path.join(place, tidy)
        if os.path.isfile(os.path.join(self._folder, path)):
            return [path]
        folder, stem = os.path.split(path)
        return [os.path.join(folder, name) for name in self._by_stem(folder).get(stem, ())]

    def _by_stem(self, folder: str) -> dict[str, list[str]]:
        """Return name without ending → images of a folder, none where there is no folder."""
        if folder not in self._listed:
            by_stem = self._listed.setdefault(folder, {})
            place = os.path.join(self._folder, folder)
            for name in sorted(os.listdir(place)) if os.path.isdir(place) else ():
                if has_image_ending(name) and not is_litter(name):
                    by_stem.setdefault(os.path.splitext(name)[0], []).append(name)
        return self._listed[folder]

    def _other_folders(self) -> list[str]:
        if self._others is None:
            own = part_of(self._stem)
            with os.scandir(self._folder) as entries:
                names = sorted(entry.name for entry in entries if entry.is_dir())
            names = [name for name in names if name != self._stem and not name.startswith(".")]
            self._others = [
                name
                for name in names
                if not is_litter(name, folder=True)
                and (own is None or part_of(name) in (None, own))
            ]
        return self._others
