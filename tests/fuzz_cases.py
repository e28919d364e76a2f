"""What the fuzz gives to the command line: study files, folders, weights and command lines of the
kinds that people have, and of the kinds that break programs. See tests/fuzz.py."""

import copy
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from hypothesis import strategies as st
from PIL import Image

NOWHERE = "http://127.0.0.1:9"  # no server: nothing is started, and nothing answers


def _stage(trainable: str = "classify", **more: Any) -> dict[str, Any]:
    config = {"dataset": "x", "epochs": 1, "batch_size": 4} | more.pop("config", {})
    return {"trainable": trainable, "config": config, **more}


STUDIES: list[dict[str, Any]] = [
    {"study": "s", "question": "?", "data": {"x": {"type": "digits", "limit": 60}},
     "stages": {"P": _stage("rotation"), "A": _stage(after="P", grid={"lr": [0.1, 0.2]})},
     "seeds": [0, 1], "compare": {"metric": "test/accuracy", "differences": [["A", "A"]]},
     "reference": {"A": 0.5}, "resources": {"workers": 1}},
    {"study": "f", "data": {"x": {"type": "image_folder", "path": "images", "size": 16}},
     "stages": {"A": _stage(), "B": _stage(config={"weights": "w.pt", "small_input": False})}},
    {"study": "m", "data": {"x": {"type": "mask_folders", "path": "scenes", "size": 32}},
     "stages": {"A": _stage("segment", config={"network": "fcn32s", "backbone": "vgg16",
                                               "hidden": 8, "watch": ["a"]})},
     "compare": {"metric": "test/miou"}},
    {"study": "c", "data": {"x": {"type": "csv", "path": "list.csv", "size": 16}},
     "stages": {"A": _stage(config={"early_stopping": {"metric": "val/loss", "patience": 2}})}},
    {"study": "h", "data": {"x": "digits"},
     "stages": {"A": _stage(search={"trials": 3, "space": {"lr": {"log": [0.01, 0.1]}},
                                    "then": {"best": 1, "seeds": [0]}})}},
    {"study": "p", "data": {"x": {"type": "image_folder", "path": "images", "labels": False}},
     "stages": {"S": {"producer": "sam", "config": {"dataset": "x", "weights": "w.pt"}}}},
]  # fmt: skip
TEXTS = ["", " ", "no", "0013", "~", "a b", "../x", "/etc/passwd", "~nobody-here/x", "a/b", "é",
         "猫", "\0", "\x1b[31m", "\ud800", "\udcff", "\u202e", "x" * 300, "x" * 70_000, "%s{0}",
         "A[lr=1]", "<b>", "val/loss", "test/iou/a", "random", "imagenet", "pipe", "loop",
         "/dev/zero", "gone", "images", "scenes", "list.csv", "w.pt", "classify", "byol", "segment",
         "sam", "2024-01-02", "1:30", "1e3", "{}", "http://["]  # fmt: skip
VALUES = st.one_of(
    st.sampled_from(TEXTS), st.text(max_size=5), st.none(), st.booleans(), st.integers(-3, 9),
    st.sampled_from([10**9, 2**63, 10**30, -(2**70), 0.0, -1.5, 1e-300, 1e308]), st.floats(),
    st.sampled_from([[], {}, [[]], [None], {"": 1}, {"a": {"b": []}}, ["x"] * 50]),
    st.sampled_from([{"lr": [n / 1e3 for n in range(1, 1001)], "batch_size": list(range(1, 1001)),
                      "seed": list(range(1000))}, list(range(2000)), [0.1] * 300]),
    st.lists(st.integers(-2, 3), max_size=3), st.dictionaries(st.sampled_from(TEXTS), st.none()),
)  # fmt: skip
SNIPPETS = ["!!bool x", "!!int ''", "!!timestamp x", "!!binary é", "!!set {a}", "!!omap [a]",
            "!!python/name:os", "!x 1", "&a [*a]", "*b", "<<: 3", "<<: [1]", "? [1]\n: 2",
            "? {a: 1}\n", "\t", "---\n", "...\n", "%YAML 9.9\n---\n", "{", "]", ": ", "- ", "'",
            '"', '"\\ud800"', '"\\e[0m"', "|\n", "=", "08", "0o9", "1_0", "yes", "~", ".nan",
            "-.inf", "\u2028", "\x85", "[" * 3000, "&a {}\n" * 3]  # fmt: skip


@dataclass
class Case:
    """One command line, with what lies in its working folder. text: the study file."""

    arguments: list[str]
    text: str | bytes = ""
    folders: list[str] = field(default_factory=list)  # names of FOLDERS
    weights: str = "none"
    mlflow: str = ""

    def write(self, folder: Path) -> None:
        """Make the working folder."""
        data = (
            self.text.encode("utf-8", "surrogatepass") if isinstance(self.text, str) else self.text
        )
        (folder / "s.yaml").write_bytes(data)
        if self.mlflow:
            text = self.mlflow.encode("utf-8", "surrogatepass")
            (folder / "mlflow.yaml").write_bytes(text)
        (folder / "loop").symlink_to("loop")
        os.mkfifo(folder / "pipe")
        _images(folder)
        _scenes(folder)
        _list(folder)
        # pipes last: to write into one waits for its reader
        for name in sorted(self.folders, key=lambda name: name.endswith("of a pipe")):
            FOLDERS[name](folder)
        if self.weights != "none":
            torch.save(WEIGHTS[self.weights](), folder / "w.pt")


def _picture(path: Path, size: tuple[int, int] = (16, 16), mode: str = "RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    seed = abs(hash(str(path))) % 2**32
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(pixels).convert(mode).save(path)


def _images(folder: Path) -> None:
    for name in ("a", "b"):
        for number in range(4):
            _picture(folder / "images" / name / f"{number}.png")


def _scenes(folder: Path) -> None:
    for number in range(6):
        _picture(folder / "scenes" / "images" / f"{number}.png")
        mask = Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16) % 2)
        (folder / "scenes" / "masks").mkdir(exist_ok=True)
        mask.save(folder / "scenes" / "masks" / f"{number}.png")
    (folder / "scenes" / "classes.csv").write_text("id,name\n0,ground\n1,thing\n")


def _list(folder: Path) -> None:
    rows = [f"images/{name}/{number}.png,{name}" for name in "ab" for number in range(4)]
    (folder / "list.csv").write_text("\n".join(["filename,label", *rows]))


def _socket(folder: Path) -> None:
    here = os.getcwd()
    os.chdir(folder / "images" / "a")  # a socket's path is short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("s.png")
    os.chdir(here)


def _pipe(path: Path) -> None:
    path.unlink(missing_ok=True)
    os.mkfifo(path)


def _sparse(folder: Path) -> None:
    with open(folder / "images" / "a" / "sparse.png", "wb") as file:
        file.truncate(2**40)


def _copy_as_test(folder: Path) -> None:
    os.rename(folder / "images", folder / "train")
    (folder / "images").mkdir()
    os.rename(folder / "train", folder / "images" / "train")
    (folder / "images" / "test").symlink_to("train")


FOLDERS: dict[str, Callable[[Path], Any]] = {
    "pipe": lambda f: os.mkfifo(f / "images" / "a" / "p.png"),
    "device": lambda f: (f / "images" / "a" / "z.png").symlink_to("/dev/zero"),
    "socket": _socket,
    "sparse": _sparse,
    "broken link": lambda f: (f / "images" / "a" / "l.png").symlink_to("none"),
    "loop": lambda f: (f / "images" / "c").symlink_to("c"),
    "folder in itself": lambda f: (f / "images" / "c").symlink_to("."),
    "not utf-8": lambda f: _picture(f / "images" / os.fsdecode(b"\xff") / "0.png"),
    "not utf-8 file": lambda f: _picture(f / "images" / "a" / os.fsdecode(b"\xff.png")),
    "escape": lambda f: _picture(f / "images" / "\x1b[31m\n" / "0.png"),
    "long": lambda f: _picture(f / "images" / ("n" * 255) / "0.png"),
    "empty file": lambda f: (f / "images" / "a" / "e.png").touch(),
    "no image": lambda f: (f / "images" / "a" / "t.png").write_text("text"),
    "empty folder": lambda f: (f / "images" / "empty").mkdir(),
    "grey": lambda f: _picture(f / "images" / "a" / "g.png", mode="L"),
    "test is train": _copy_as_test,
    "empty list": lambda f: (f / "list.csv").write_bytes(b""),
    "list of bytes": lambda f: (f / "list.csv").write_bytes(b"filename,label\n\xff\0,\x1b\n"),
    "list out": lambda f: (f / "list.csv").write_text("filename,label\n../x.png,a\n/etc/x,b\n"),
    "list open": lambda f: (f / "list.csv").write_text('filename,label\n"a.png,a\n'),
    "list of a pipe": lambda f: _pipe(f / "list.csv"),
    "no table": lambda f: (f / "scenes" / "classes.csv").unlink(),
    "bad table": lambda f: (f / "scenes" / "classes.csv").write_text("id,name\n0,a\n0,b\nx,\n"),
    "table of a pipe": lambda f: _pipe(f / "scenes" / "classes.csv"),
    "mask of a pipe": lambda f: _pipe(f / "scenes" / "masks" / "0.png"),
    "mask too small": lambda f: _picture(f / "scenes" / "masks" / "0.png", (4, 4), "L"),
    "mask of all": lambda f: _picture(f / "scenes" / "masks" / "1.png", mode="L"),
    "no masks": lambda f: os.rename(f / "scenes" / "masks", f / "scenes" / "gone"),
}  # fmt: skip


def _state(value: float = 0.0) -> dict[str, torch.Tensor]:
    return {"conv1.weight": torch.full((64, 3, 7, 7), value), "bn1.weight": torch.ones(64)}


WEIGHTS: dict[str, Callable[[], Any]] = {
    "list": lambda: [1, 2],
    "empty": dict,
    "text": lambda: {"state_dict": {"w": "text"}, "epoch": 3},
    "part": _state,
    "nan": lambda: _state(float("nan")),
    "numbers": lambda: {1: torch.zeros(1), None: torch.zeros(2)},
    "complex": lambda: {"conv1.weight": torch.zeros(2, dtype=torch.complex64)},
    "two": lambda: {"student": _state(), "teacher": _state(1.0)},
    "deep": lambda: {"model": {"model": {"model": {"model": {"model": _state()}}}}},
    "sparse": lambda: {"conv1.weight": torch.zeros(64, 3, 7, 7).to_sparse()},
    "odd names": lambda: {"\x1b[31m.\ud800": torch.zeros(1), "." * 500: torch.zeros(0)},
}


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place of a mapping or list, by its keys."""
    inside = value.items() if isinstance(value, dict) else enumerate(value)
    places = []
    for key, item in inside:
        places.append((*path, key))
        if isinstance(item, dict | list):
            places += _places(item, (*path, key))
    return places


def _change(draw: st.DrawFn, study: dict[str, Any], place: tuple[Any, ...]) -> None:
    """Change what stands at one place of a study, in place."""
    *parents, last = place
    owner: Any = study
    for key in parents:
        owner = owner[key]
    how = draw(st.sampled_from(["value", "value", "value", "remove", "add", "rename"]))
    if how == "value":
        owner[last] = copy.deepcopy(draw(VALUES))
    elif how == "remove":
        del owner[last]
    elif isinstance(owner, dict):
        key = draw(st.one_of(st.sampled_from(TEXTS), st.integers(0, 9), st.booleans()))
        owner[key] = owner.pop(last) if how == "rename" else copy.deepcopy(draw(VALUES))


@st.composite
def studies(draw: st.DrawFn) -> str | bytes:
    """The text of a study file: right, with a few wrong values, or with broken YAML."""
    study = copy.deepcopy(draw(st.sampled_from(STUDIES)))
    for _ in range(draw(st.integers(0, 3))):
        if places := _places(study):
            _change(draw, study, draw(st.sampled_from(places)))
    text = yaml.safe_dump(study, sort_keys=False, allow_unicode=draw(st.booleans()))
    for _ in range(draw(st.sampled_from([0, 0, 0, 1, 2]))):
        at = draw(st.integers(0, len(text)))
        text = (
            text[:at] + draw(st.one_of(st.sampled_from(SNIPPETS), st.text(max_size=3))) + text[at:]
        )
    if draw(st.integers(0, 30)) == 0:
        return draw(st.binary(max_size=50))
    return text


ODD_WORDS = [*TEXTS, "s.yaml", "digits", "sam", "\udcff.yaml", "loop/x", "pipe"]
WORDS = st.one_of(st.sampled_from(ODD_WORDS), st.text(max_size=4)).map(
    lambda text: (
        os.fsdecode(text.encode("utf-8", "replace").replace(b"\0", b"0"))
        if "\udcff" not in text
        else os.fsdecode(b"\xff.yaml")
    )
)  # what a command line can hold
KEYS = ["study", "question", "seeds", "data.x", "data.x.path", "data.x.size", "stages.A.config.lr",
        "stages.A.grid.lr", "stages.A.config.weights", "stages.A.after", "compare.metric",
        "resources.workers", "stages.A.config", "stages", "reference.A", "a..b", ""]  # fmt: skip
MLFLOW = ["", "", "", f"tracking_uri: {NOWHERE}", "tracking_uri: 'http://['", "port: x", "host: no",
          "[", "backend_store_uri: ~nobody-here/x\nport: 70000", '"\\ud800": 1']  # fmt: skip


def _add_study(draw: st.DrawFn, case: Case) -> None:
    """Give a case a study with its data, `--set` and `--data`."""
    case.text = draw(studies())
    case.folders = draw(st.lists(st.sampled_from(list(FOLDERS)), max_size=2, unique=True))
    case.weights = draw(st.sampled_from(["none", *WEIGHTS]))
    rare = draw(st.integers(0, 9)) == 0
    case.arguments.append(draw(WORDS) if rare else "s.yaml")
    for _ in range(draw(st.sampled_from([0, 0, 1, 2]))):
        word = draw(st.one_of(WORDS, st.sampled_from(SNIPPETS)))
        case.arguments += ["--set", f"{draw(st.sampled_from(KEYS))}={word}"]
    if draw(st.integers(0, 4)) == 0:
        case.arguments += ["--data", draw(WORDS)]


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """One command that trains nothing and starts no server."""
    command = draw(st.sampled_from(
        ["plan"] * 8 + ["data"] * 5 + ["status", "describe", "studies", "down", "clean", "submit",
                                       "stop", "compare", "logs", "predict", "word"]
    ))  # fmt: skip
    case = Case([command], mlflow=draw(st.sampled_from(MLFLOW)))
    if command == "word":
        case.arguments = draw(st.lists(WORDS, max_size=3))
    elif command in ("plan", "data", "submit"):
        _add_study(draw, case)
    else:
        case.arguments += draw(st.lists(WORDS, max_size=2))
    if command in ("submit", "compare", "logs", "predict"):  # else a server would be started
        case.mlflow = f"tracking_uri: {NOWHERE}"
    if command == "submit":
        address = draw(st.sampled_from([NOWHERE, "http://[", "x", "", "http://a@b", "ftp://a"]))
        case.arguments += ["--address", address]
    if command == "clean":
        case.arguments.append("--dry-run")
    if draw(st.integers(0, 9)) == 0:
        case.arguments += [
            "--home",
            draw(st.sampled_from(["loop", "s.yaml", "x" * 300, "new", "pipe"])),
        ]
    if command in ("plan", "status") and draw(st.booleans()):
        case.arguments.append("--json")
    return case
