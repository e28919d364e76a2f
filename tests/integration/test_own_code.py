"""The example of trainables/README.md, in a folder of its own, with the installed product: checked,
searched, compared, predicted, and loaded from MLflow where none of its files are."""

import json
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.installed import ROOT, installed_python, without_checkout

pytestmark = pytest.mark.slow

LOADED = """
import sys
import mlflow.pyfunc
import numpy as np
mlflow.set_tracking_uri(sys.argv[1])
model = mlflow.pyfunc.load_model(sys.argv[2])
print(model.predict(np.zeros((2, 8, 8, 3), np.uint8))["class"].tolist())
"""


def blocks(kind: str, begins: str) -> str:
    text = (ROOT / "trainables" / "README.md").read_text(encoding="utf-8")
    found = re.findall(rf"^```{kind}\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)
    (block,) = [block for block in found if block.startswith(begins)]
    return str(block)


@pytest.fixture(scope="module")
def study(command) -> Path:
    folder = command.folder / "beside"
    folder.mkdir()
    module = blocks("python", '"""my_module.py')
    (folder / "my_module.py").write_text(module, encoding="utf-8")
    (folder / "focal.yaml").write_text(blocks("yaml", "study: focal"), encoding="utf-8")
    return folder / "focal.yaml"


@pytest.fixture(scope="module")
def submitted(command, study):
    return command.run("submit", str(study))


def test_the_check_says_that_it_keeps_the_contract(command, study):
    file = str(study.parent / "my_module.py")
    said = command.run("check", "my_module:Focal", "--code", file, "--set", "gamma=1.0")
    assert said.returncode == 0, said.stdout + said.stderr
    assert [line.split(":")[0] for line in said.stdout.splitlines()[:-1]] == [
        "ok   its form", "ok   builds", "ok   a training step", "ok   an evaluation",
        "ok   a resume after epoch 1 of 2", "ok   two processes",
    ]  # fmt: skip
    assert "bit for bit" in said.stdout


def test_it_is_searched_over_and_compared_by_its_own_metric(command, study, submitted):
    assert submitted.returncode == 0, submitted.stdout + submitted.stderr
    assert "test/confidence (%)" in submitted.stdout
    rows = json.loads(command.ask("compare", "focal", "--json").stdout)["rows"]
    labels = [row["label"] for row in rows]
    assert len(rows) == 2 and labels[1] == "focal_default"
    assert labels[0] in ("focal[gamma=0.0]", "focal[gamma=1.0]")
    assert all(0 < row["mean"] <= 1 for row in rows)
    (found,) = [item for item in command.status()["studies"] if item["study"] == "focal"]
    assert found["searches"][0]["counts"] == {"FINISHED": 2}
    assert found["state"] == "FINISHED"


def test_its_model_predicts_without_its_files(command, study, submitted, tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (9, 9, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "photo.png")
    hidden = (study.parent / "my_module.py").rename(study.parent / "hidden.txt")
    try:
        said = command.run("predict", "focal/focal_default/0", str(tmp_path / "photo.png"))
        tags = command.mlflow().get_run(command.runs("focal")["focal_default"]["mlflow_run_id"])
        model = tags.data.tags["orchestrator.model_best"]
        uri = command.status()["mlflow"]["tracking_uri"]
        loaded = subprocess.run(
            [installed_python(), "-c", LOADED, uri, model], cwd=tmp_path, text=True,
            capture_output=True, env=without_checkout(),
        )  # fmt: skip
    finally:
        hidden.rename(study.parent / "my_module.py")
    assert said.returncode == 0, said.stdout + said.stderr
    assert re.search(r"photo.png +\d +\d+\.\d %", said.stdout)
    assert loaded.returncode == 0, loaded.stderr
    assert re.fullmatch(r"\['\d', '\d'\]", loaded.stdout.strip().splitlines()[-1])


def test_a_change_of_its_code_trains_again_and_a_comment_does_not(command, study, submitted):
    module = study.parent / "my_module.py"
    text = module.read_text(encoding="utf-8")

    def states() -> list[tuple[str, str]]:
        planned = json.loads(command.ask("plan", str(study), "--json").stdout)
        return [(item["state"], item["why"]) for item in planned]

    assert {state for state, _ in states()} == {"done"}
    module.write_text(text + "# a comment\n", encoding="utf-8")
    assert {state for state, _ in states()} == {"done"}
    assert "nothing to train" in command.run("submit", str(study)).stdout
    module.write_text(text.replace("** self.config.gamma", "** (2 * self.config.gamma)"), "utf-8")
    assert "done" not in {state for state, _ in states()}
    module.write_text(text, encoding="utf-8")
