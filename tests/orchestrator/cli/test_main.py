"""Tests of the command line: every command with its flags, and the answer to a wrong one."""

import argparse
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from orchestrator.cli.main import COMMANDS, _parser, main
from orchestrator.config.yaml_loader import built_in_studies
from tests.trainables.tasks.test_sam import small_sam
from trainables.data.datasets import DATASETS

EVERYWHERE = "--home DIR, --mlflow FILE"
FLAGS = {
    "submit": "STUDY, --set KEY=VALUE, --data DIR, --address URL, --cluster NAME, --json",
    "plan": "STUDY, --set KEY=VALUE, --data DIR, --cluster NAME, --json",
    "status": "[STUDY], --cluster NAME, --json, --watch",
    "compare": "STUDY, --cluster NAME, --format FORM, --json",
    "report": "STUDY, --out FILE, --format FORM",
    "stop": "STUDY, --cluster NAME, --any-home",
    "logs": "RUN, --cluster NAME",
    "predict": "RUN, IMAGE, --out DIR",
    "check": "[STUDY], --set KEY=VALUE, --data DIR, --address URL, --cluster NAME, --code PATH",
    "manifest": "KIND, [STUDY], --set KEY=VALUE, --data DIR, --cluster NAME, --image IMAGE, "
    "--queue NAME",
    "clean": "--dry-run",
    "up": "",
    "down": "",
    "open": "[STUDY], --ray",
    "describe": "[NAME], --markdown, --json",
    "studies": "",
    "data": "[STUDY], --set KEY=VALUE, --data DIR",
}


@pytest.fixture(autouse=True)
def working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORCHESTRATOR_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)


def commands() -> dict[str, argparse.ArgumentParser]:
    (subparsers,) = [
        action for action in _parser()._actions if isinstance(action, argparse._SubParsersAction)
    ]
    return dict(subparsers.choices)


def spelled(action: argparse.Action) -> str:
    """As a user types it: `--data DIR`, `STUDY`, `[STUDY]` where it may be left out."""
    if not action.option_strings:
        return f"[{action.metavar}]" if action.nargs == "?" else str(action.metavar)
    return " ".join([*action.option_strings, *([str(action.metavar)] if action.metavar else [])])


def test_the_commands_and_their_flags_are_these_and_no_others() -> None:
    flags = {
        name: ", ".join(
            spelled(action)
            for action in parser._actions
            if not isinstance(action, argparse._HelpAction)
        )
        for name, parser in commands().items()
    }
    assert flags == {
        name: ", ".join(part for part in (own, EVERYWHERE) if part) for name, own in FLAGS.items()
    }


def test_what_every_command_has_may_stand_before_its_name_too() -> None:
    flags = [flag for action in _parser()._actions for flag in action.option_strings]
    assert flags == ["-h", "--help", "--home", "--mlflow"]
    for line in (["--home", "h", "--mlflow", "m", "up"], ["up", "--home", "h", "--mlflow", "m"],
                 ["--home", "g", "--mlflow", "m", "up", "--home", "h"]):  # fmt: skip
        options = _parser().parse_args(line)
        assert (options.command, options.home, options.mlflow) == ("up", "h", "m")
    options = _parser().parse_args(["up"])
    assert (options.home, options.mlflow) == (None, None)


def test_every_flag_and_command_says_what_it_is_for() -> None:
    assert all(about for _, _, about in COMMANDS.values())
    for parser in commands().values():
        assert all(action.help for action in parser._actions)


@pytest.mark.parametrize("command", sorted(FLAGS))
def test_every_command_has_a_handler_of_its_name(command: str) -> None:
    module = importlib.import_module(f"orchestrator.cli.{COMMANDS[command][0]}")
    handler = getattr(module, command)
    assert handler.__doc__


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line on standard error of a command line that is wrong."""
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.endswith("; see python -m orchestrator --help\n")
    return err.removesuffix("; see python -m orchestrator --help\n")


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["sumbit"], "error: no command 'sumbit' (did you mean 'submit'?)"),
        (["zzz"], f"error: no command 'zzz' (there are: {', '.join(FLAGS)})"),
        (["it's"], f'error: no command "it\'s" (there are: {", ".join(FLAGS)})'),
        ([], "error: the following arguments are required: COMMAND"),
        (["plan"], "error: the following arguments are required: STUDY"),
        (["plan", "digits", "--js"], "error: unrecognized arguments: --js"),
        (
            ["submit", "digits", "--add", "http://x"],
            "error: unrecognized arguments: --add http://x",
        ),
        (["status", "a", "digits"], "error: unrecognized arguments: digits"),
        (["--json", "status"], "error: unrecognized arguments: --json"),
        (["plan", "digits", "--set"], "error: argument --set: expected one argument"),
    ],
)
def test_a_wrong_command_line_is_one_line_and_exit_2(
    capsys: pytest.CaptureFixture[str], arguments: list[str], line: str
) -> None:
    assert refused(capsys, *arguments) == line


def test_set_may_be_given_again_and_again() -> None:
    options = _parser().parse_args(["plan", "digits", "--set", "a=1", "--set", "b=[2, 3]"])
    assert options.set == ["a=1", "b=[2, 3]"]
    assert _parser().parse_args(["plan", "digits"]).set == []


def test_a_wrong_study_is_exit_2_and_makes_no_home(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", "digits", "--set", "seeds=[0, 0]"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err == "error: digits.yaml: 1 error\n  seeds: lists a seed twice: [0, 0]\n"
    assert not (tmp_path / "home").exists()


def test_an_old_key_of_a_study_is_one_warning_that_names_the_new_one(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["data", "digits", "--set", "compare.gains=[[full_rotation, full_random]]"]) == 0
    assert capsys.readouterr().err == "warning: compare: `gains` is now called `differences`\n"


def test_a_wrong_mlflow_file_is_exit_2(capsys: pytest.CaptureFixture[str]) -> None:
    Path("mlflow.yaml").write_text("prot: 5000\n", encoding="utf-8")
    assert main(["status"]) == 2
    line = "error: mlflow.yaml: 1 error\n  prot: unknown key (did you mean 'port'?)\n"
    assert capsys.readouterr().err == line


def test_status_of_a_study_that_was_never_submitted_says_so(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for flags in ([], ["--json"]):
        assert main(["status", "digits", *flags]) == 1
        line = "error: MLflow does not run: start it with `up` to see study digits\n"
        assert capsys.readouterr() == ("", line)


def test_studies_lists_every_built_in_study(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["studies"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(built_in_studies())
    assert all(line.endswith("?") for line in lines)


def test_a_closed_standard_output_gives_no_traceback() -> None:
    ours, theirs = os.pipe()
    os.close(ours)
    finished = subprocess.run(
        [sys.executable, "-m", "orchestrator", "studies"],
        cwd=Path(__file__).parents[3], stdout=theirs, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    os.close(theirs)
    assert (finished.returncode, finished.stderr) == (1, "")


def test_a_broken_connection_is_not_taken_for_a_closed_output(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(_: argparse.Namespace) -> int:
        raise BrokenPipeError("of a socket")

    monkeypatch.setattr("orchestrator.cli.plan.studies", broken)
    assert main(["studies"]) == 1
    line = capsys.readouterr().err
    assert line.startswith("error: unexpected BrokenPipeError: of a socket: please report it with ")
    log = Path(line.split()[-1])
    assert "raise BrokenPipeError" in log.read_text(encoding="utf-8")
    log.unlink()


def test_data_lists_every_type(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(DATASETS)


def test_data_describes_what_a_study_s_data_holds(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "digits"]) == 0
    line, classes = capsys.readouterr().out.splitlines()
    assert line.startswith("digits: 10 classes; train ")
    assert classes.strip() == "0, 1, 2, 3, 4, 5, 6, 7, 8, 9"


def write_masks(folder: Path, values: tuple[int, int]) -> Path:
    """A study of ten masks, half of them the one value and half the other."""
    for kind in ("images", "masks"):
        (folder / "set" / kind).mkdir(parents=True)
    for number in range(10):
        Image.new("RGB", (32, 32)).save(folder / f"set/images/{number}.png")
        mask = Image.new("L", (32, 32), values[0])
        mask.paste(values[1], (0, 0, 16, 32))
        mask.save(folder / f"set/masks/{number}.png")
    (folder / "set/classes.csv").write_text("id,name\n0,sky\n1,tree\n")
    config = "{dataset: mine, network: fcn32s, backbone: vgg16, hidden: 8, epochs: 1}"
    study = folder / "study.yaml"
    study.write_text(
        "study: trees\nquestion: Where?\ndata: {mine: {type: mask_folders, path: set, size: 32}}\n"
        f"stages: {{a: {{trainable: segment, config: {config}}}}}\n"
    )
    return study


def test_data_counts_the_pixels_of_masks_by_class_and_part(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["data", str(write_masks(tmp_path, (0, 1)))]) == 0
    first, _, sky, tree = capsys.readouterr().out.splitlines()
    assert first.startswith("mine: 2 classes of pixels; train 7, val 1, test 2; ")
    assert sky.split() == ["sky", "0", "3,584", "(50.0%)", "512", "(50.0%)", "1,024", "(50.0%)"]
    assert tree.split()[:4] == ["tree", "1", "3,584", "(50.0%)"]


def test_data_cuts_what_no_stage_uses_and_says_what_producers_get(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_masks(tmp_path, (0, 1))
    study = tmp_path / "two.yaml"
    mine = "{type: mask_folders, path: set, size: 32}"
    study.write_text(
        "study: two\nquestion: What lies there?\n"
        f"data: {{digits: digits, unused: {mine}, all: {mine}}}\n"
        "stages:\n  a: {trainable: classify, config: {dataset: digits, epochs: 1}}\n"
        "  b: {producer: sam, config: {dataset: all, weights: w.pth, model: any}}\n"
    )
    small_sam(tmp_path / "w.pth")
    assert main(["data", str(study)]) == 0
    said = capsys.readouterr().out
    assert "unused: 2 classes of pixels; train 7, val 1, test 2; " in said
    assert "all: 2 classes of pixels; 10 images, none held out: a producer works on all; " in said


@pytest.mark.parametrize("command", ["data", "plan"])
def test_data_and_plan_refuse_masks_in_which_a_class_has_no_pixel(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    assert main([command, str(write_masks(tmp_path, (0, 255)))]) == 2
    assert "data.mine: class 'tree' (1) has no pixel in the 7" in capsys.readouterr().err


def test_plan_shows_every_run_and_starts_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", "digits", "--set", "seeds=[7]", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {row["stage"] for row in rows} == {
        "rotation",
        "late_rotation",
        "late_random",
        "full_rotation",
        "full_random",
    }
    assert {(row["seed"], row["state"], row["why"]) for row in rows} == {(7, "new", "first time")}
    assert not (tmp_path / "home" / "services.json").exists()
    assert list((tmp_path / "home" / "store").iterdir()) == []


@pytest.mark.parametrize("width", [80, 100, 140])
def test_a_plan_fits_the_terminal_and_shows_labels_with_their_grids(
    width: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    grid = "stages.rotation.grid.lr=[0.1, 0.2]"
    assert main(["plan", "digits", "--set", "seeds=[7]", "--set", grid]) == 0
    text = capsys.readouterr().out
    lines = text.splitlines()
    assert max(map(len, lines)) <= width, text
    for stage in ("rotation", "late_rotation", "full_rotation"):
        name = f"{stage}[lr=0.2]" if stage == "rotation" else f"{stage}[rotation.lr=0.2]"
        assert any(line.startswith(name) and "new" in line for line in lines), text
    assert text.count("first time") == 8, text
    assert text.count("rotation[lr=0.2]") == 3, text  # the Run itself, and two start from it


def test_where_nothing_runs_status_and_down_say_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["down"]) == 0
    assert capsys.readouterr().out == "nothing was running\n"
    assert main(["status", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["mlflow"] == {"tracking_uri": None}
    assert answer["ray"] == {"address": None, "dashboard_url": None, "token_path": None}
    assert answer["studies"] == []
