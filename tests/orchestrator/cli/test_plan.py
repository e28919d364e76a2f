"""Commands that read a study show as much as a reader can take in, and say how much is left."""

import io
import json
from pathlib import Path

import pytest
from PIL import Image

from orchestrator.cli.main import main
from orchestrator.cli.plan import FilesRead
from orchestrator.storage.run_records import Store
from tests.conftest import finish_run

STUDY = """
study: many
question: Which seed?
data: {{{data}}}
stages:
  only:
    trainable: classify
    config: {{dataset: x, backbone: resnet10_slim, small_input: true, epochs: 1}}
seeds: {seeds}
compare: {{metric: test/loss}}
"""


@pytest.fixture(autouse=True)
def working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORCHESTRATOR_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)


def write(seeds: int, data: str = "x: {type: digits, limit: 60}") -> None:
    Path("many.yaml").write_text(STUDY.format(data=data, seeds=list(range(seeds))))


@pytest.mark.parametrize(("seeds", "more"), [(100, 0), (120, 20)])
def test_a_long_plan_is_cut_and_its_rest_counted(
    capsys: pytest.CaptureFixture[str], seeds: int, more: int
) -> None:
    write(seeds)
    assert main(["plan", "many.yaml"]) == 0
    out = capsys.readouterr().out
    assert len([line for line in out.splitlines() if line.startswith("only ")]) == 100
    rest = f"and {more} more Runs ({more} new); `plan --json` shows all"
    assert (rest in out) == bool(more) and (" more Runs" in out) == bool(more)
    assert main(["plan", "many.yaml", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)) == seeds


@pytest.mark.parametrize(("classes", "more"), [(100, ""), (102, ", and 2 more")])
def test_a_long_list_of_classes_is_cut(
    capsys: pytest.CaptureFixture[str], classes: int, more: str
) -> None:
    for index in range(classes):
        for part, count in {"train": 2, "val": 1, "test": 1}.items():
            folder = Path("photos", part, f"c{index:03}")
            folder.mkdir(parents=True)
            for copy in range(count):
                colour = (index, ["train", "val", "test"].index(part) * 9 + copy, 7)
                Image.new("RGB", (8, 8), colour).save(folder / f"{copy}.png")
    write(1, "x: {type: image_folder, path: photos, size: 8}")
    assert main(["data", "many.yaml"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert f"{classes} classes" in lines[0]
    assert lines[1].endswith(f"c098, c099{more}")


def test_a_line_end_in_the_name_of_a_class_or_a_file_ends_no_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name in ("cat", "dog\nerror: x"):
        for copy in range(5):
            folder = Path("photos", name)
            folder.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 8), (len(name), copy, 7)).save(folder / f"{copy}.png")
    Path("photos/cat/a.x\nerror: y").write_text("")
    write(1, "x: {type: image_folder, path: photos, size: 8}")
    for command in ("data", "plan"):
        assert main([command, "many.yaml"]) == 0
        shown = capsys.readouterr()
        lines = f"{shown.out}{shown.err}".splitlines()
        assert not any(line.startswith("error") for line in lines)
        assert any("1 .x error: y (not an image)" in line for line in lines)


def test_a_plan_says_how_long_it_takes_once_a_run_of_its_kind_has_finished(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    write(3)
    assert main(["plan", "many.yaml"]) == 0 and "time:" not in capsys.readouterr().out
    assert main(["plan", "many.yaml", "--json"]) == 0
    first, *_ = json.loads(capsys.readouterr().out)
    finish_run(Store(tmp_path / "home" / "store"), first["key"], seconds=600.0, epochs=1)
    assert main(["plan", "many.yaml"]) == 0  # two Runs of ten minutes; one takes all CPUs
    assert "time: about 20 min, 1 at once on this machine\n" in capsys.readouterr().out


class Screen(io.StringIO):
    """A terminal, or a file, as `terminal` says."""

    def __init__(self, terminal: bool) -> None:
        super().__init__()
        self.terminal = terminal

    def isatty(self) -> bool:
        return self.terminal


def shown_on(screen: Screen, monkeypatch: pytest.MonkeyPatch, seconds: list[float]) -> str:
    """What a reader is shown who is told of one more file at each of these times."""
    now = [0.0]
    monkeypatch.setattr("orchestrator.cli.plan.time.monotonic", lambda: now[0])
    with FilesRead(screen) as shown:
        for number, now[0] in enumerate(seconds, 1):
            shown.update("photos\x1b[2J", number, 2000)
    return screen.getvalue()


def test_files_are_counted_on_a_terminal_after_a_second_and_then_removed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    text = shown_on(Screen(terminal=True), monkeypatch, [0.5, 1.5, 1.55, 1.7])
    lines = text.split("\r")
    assert lines == ["", "photos\\x1b[2J: 2 of 2,000 files read\x1b[K",
                     "photos\\x1b[2J: 4 of 2,000 files read\x1b[K", "\x1b[K"]  # fmt: skip


def test_a_file_or_a_quick_reading_gets_no_line(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shown_on(Screen(terminal=False), monkeypatch, [5.0, 6.0]) == ""
    assert shown_on(Screen(terminal=True), monkeypatch, [0.1, 0.9]) == ""
