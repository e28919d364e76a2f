"""The script for Slurm is a sound one, and asks for what a study needs.

`python -m tests.cluster slurm` runs it with Debian's Slurm.
"""

import re
import subprocess
from pathlib import Path

import pytest

from tests.orchestrator.manifests.samples import printed, study_file


def options(script: str) -> dict[str, str]:
    """What the script asks Slurm for."""
    lines = [line.partition("#SBATCH ")[2] for line in script.splitlines() if "#SBATCH" in line]
    words = [word for line in lines for word in line.partition("  #")[0].split()]
    return dict(word.removeprefix("--").partition("=")[::2] for word in words)


def checked(script: str, folder: Path) -> str:
    """A script that bash can read, and in which ShellCheck finds nothing."""
    path = folder / "made.sbatch"
    path.write_text(script)
    subprocess.run(["bash", "-n", path], check=True)
    found = subprocess.run(
        ["shellcheck", "--severity=warning", path], capture_output=True, text=True
    )
    assert found.returncode == 0, found.stdout
    return script


def test_it_asks_for_the_nodes_of_one_run(capsys, tmp_path: Path) -> None:
    script = checked(printed("slurm", capsys, study_file(tmp_path), "--queue", "big"), tmp_path)
    found = options(script)
    assert found["job-name"] == "my-photos-2" and found["partition"] == "big"
    assert (found["nodes"], found["ntasks-per-node"]) == ("3", "1")
    assert (found["cpus-per-task"], found["gpus-per-node"]) == ("4", "1")
    assert "requeue" in found and found["signal"] == "B:USR1@120"


def test_it_submits_the_study_file_wherever_it_is_started(
    capsys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study_file(tmp_path)
    monkeypatch.chdir(tmp_path)
    arguments = ("a study.yaml", "--set", "stages.full.config.epochs=2", "--cluster", "lab")
    script = checked(printed("slurm", capsys, *arguments), tmp_path)
    assert f"submit '{tmp_path}/a study.yaml' --set stages.full.config.epochs=2 " in script
    assert re.search(r"^home=/lab/home$", script, re.MULTILINE)
    assert re.search(r"^data=/lab/images$", script, re.MULTILINE)
    assert (
        "printf '%s' 'tracking_uri: http://tracking:5000\n' >\"$home/slurm/mlflow.yaml\"" in script
    )
    assert '--mlflow "$home/slurm/mlflow.yaml" &' in script


def test_a_folder_with_odd_characters_stays_one_word(capsys, tmp_path: Path) -> None:
    script = checked(printed("slurm", capsys, "digits", "--home", "/a b/$x"), tmp_path)
    assert "home='/a b/$x'" in script


def test_a_study_without_gpus_asks_for_none(capsys, tmp_path: Path) -> None:
    script = printed("slurm", capsys, "digits", "--set", "resources.gpus_per_worker=0")
    assert "gpus-per-node" not in checked(script, tmp_path)
