"""Lists the folders and images of a data set, and counts every file that is passed over."""

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Set
from pathlib import Path

from PIL import Image

from trainables.dataset import few
from trainables.pixels.images import EXTENSIONS, FORMATS

# part → class → names of images relative to a folder; without labels: one class, ""
Listing = dict[str, dict[str, list[str]]]
PassedOver = Mapping[tuple[str, str], int]  # (kind, such as ".txt"; reason) → number of files

LITTER, HIDDEN = "made by another program", "hidden"
NOT_AN_IMAGE, NOT_READ = "not an image", "images of a kind that is not read: convert them to PNG"
NOT_A_FILE, NO_TARGET = "no ordinary file", "link to nothing"
_OTHER_IMAGES = frozenset(
    "heic heif avif jp2 j2k jxl svg psd tga dcm nii exr hdr dng cr2 cr3 nef arw orf rw2 xcf "
    "ico pcx".split()
)
_LITTER_FOLDERS = frozenset(
    "@eadir __macosx .ipynb_checkpoints __pycache__ #recycle @recycle $recycle.bin lost+found "
    ".appledouble .thumbnails .trash .trashes .spotlight-v100 .fseventsd recycler #snapshot @tmp "
    "@sharebin".split()
) | {"system volume information", "network trash folder", "temporary items"}
_LITTER_FILES = frozenset(
    "thumbs.db ehthumbs.db ehthumbs_vista.db desktop.ini .ds_store .localized picasa.ini "
    ".picasa.ini .nomedia .directory icon\r".split()
)
_LITTER_BEGINS = ("._", "~$", ".~lock.", ".nfs", ".trash-")
_LITTER_ENDS = ("~", ".tmp", ".part", ".partial", ".crdownload")


def is_litter(name: str, *, folder: bool = False) -> bool:
    """Return whether another program has left this file or folder, such as Thumbs.db."""
    known = name.lower()
    if folder:
        return known in _LITTER_FOLDERS or known.startswith(_LITTER_BEGINS)
    return (
        known in _LITTER_FILES or known.startswith(_LITTER_BEGINS) or known.endswith(_LITTER_ENDS)
    )


def kind_of(name: str) -> str:
    """Return the ending of a file in small letters, such as ".jpg", or "no ending"."""
    ending = os.path.splitext(name)[1].lower()
    return ending if len(ending) > 1 else "no ending"


def has_image_ending(name: str) -> bool:
    """Return whether the ending is that of an image which can be read."""
    return kind_of(name)[1:] in EXTENSIONS


def passed_over_text(passed: PassedOver) -> str:
    """Say what was passed over, most first: `2 .txt, 1 .md (not an image); 1 .x.jpg (hidden)`."""
    by_reason: dict[str, list[str]] = {}
    for (kind, reason), count in sorted(passed.items(), key=lambda item: (-item[1], item[0])):
        by_reason.setdefault(reason, []).append(f"{count:,} {kind}")
    return "; ".join(f"{few(kinds, most=8)} ({reason})" for reason, kinds in by_reason.items())


class Scan:
    """Lists folders below `root`, each once, and counts what is passed over.

    known: names of files that are read in another way, such as classes.csv; they are not counted.
    """

    def __init__(self, root: Path, known: frozenset[str] = frozenset()) -> None:
        self.root = root
        self.passed: Counter[tuple[str, str]] = Counter()
        self.notes: list[str] = []  # what a reader of the data should know, one line each
        self.groups: dict[str, str] = {}  # name of an image → its group, where a list names it
        self._known = known
        self._listed: dict[str, tuple[list[str], list[str]]] = {}

    def list(self, inner: str = "") -> tuple[list[str], list[str]]:
        """Return (folders, images) directly in a folder below `root`, sorted. inner: "" or "a/b/".

        Files without an ending are images if their content is. Raises OSError as it comes.
        """
        if inner not in self._listed:
            folders, images = [], []
            with os.scandir(self.root / inner) as entries:
                for entry in sorted(entries, key=lambda entry: entry.name):
                    reason = self._reason(entry)
                    if reason is not None:
                        self._count(entry, reason)
                    elif entry.is_dir():
                        folders.append(entry.name)
                    elif entry.name not in self._known:
                        images.append(entry.name)
            self._listed[inner] = folders, images
        return self._listed[inner]

    def read_otherwise(self, names: Iterable[str]) -> None:
        """Count no files of these names, which a caller reads in another way."""
        self._known |= frozenset(names)

    def pass_over(self, name: str, reason: str, count: int = 1) -> None:
        """Count files of this kind of name that a caller passes over."""
        self.passed[kind_of(name), reason] += count

    def pass_over_folder(self, name: str, reason: str) -> None:
        """Count a whole folder that a caller passes over."""
        self.passed[f"folder {name!r}", reason] += 1

    def pass_over_rest(self, used: Set[str], reason: str) -> None:
        """Count the images of the folders listed so far that are not used."""
        for inner, (_, images) in self._listed.items():
            for image in images:
                if f"{inner}{image}" not in used:
                    self.pass_over(image, reason)

    def seen_in(self, inner: str) -> str:
        """Say which other files lie in a folder, for a message; empty where none do."""
        one = Scan(self.root / inner)
        one.list()
        return passed_over_text(one.passed)

    def _count(self, entry: os.DirEntry[str], reason: str) -> None:
        if entry.is_dir():
            self.pass_over_folder(entry.name, reason)
        elif reason == LITTER and entry.name.lower() in _LITTER_FILES:
            self.passed[entry.name.strip(), reason] += 1
        elif reason == LITTER and entry.name.startswith("._"):
            self.passed["._*", reason] += 1
        else:
            self.pass_over(entry.name, reason)

    def _reason(self, entry: os.DirEntry[str]) -> str | None:
        """Return why an entry is passed over; None where it is a folder or an image."""
        if is_litter(entry.name, folder=entry.is_dir()):
            return LITTER
        if entry.name.startswith("."):
            return HIDDEN
        if entry.is_dir() or entry.name in self._known:
            return None
        ending = kind_of(entry.name)
        if ending != "no ending" and not has_image_ending(entry.name):
            return NOT_READ if ending[1:] in _OTHER_IMAGES else NOT_AN_IMAGE
        if not os.path.exists(entry.path):  # a link to nothing: with an ending it is refused later
            return NO_TARGET if ending == "no ending" else None
        if not entry.is_file():
            return NOT_A_FILE  # opening a pipe would wait for ever
        return None if ending != "no ending" or _is_image(entry.path) else NOT_AN_IMAGE


def _is_image(path: str) -> bool:
    """Return whether a file holds an image that can be read, by its header."""
    with open(path, "rb") as stream:
        try:
            with Image.open(stream, formats=FORMATS):
                return True
        except MemoryError:
            raise
        except Exception:  # Pillow raises nearly everything on other content
            return False
