"""The registered model of a finished study is served by MLflow and says what a picture shows."""

from pathlib import Path

import numpy as np
import pytest
from mlflow import MlflowClient
from PIL import Image

from tests.integration.serving import ask, served

pytestmark = pytest.mark.slow


def test_the_best_model_of_a_stage_is_served_and_classifies_a_picture(
    finished, command, tmp_path: Path
):
    uri = command.status()["mlflow"]["tracking_uri"]
    client = MlflowClient(uri, registry_uri=uri)
    version = client.get_model_version_by_alias("tiny.full", "best")
    assert version.run_id == command.runs("tiny")["full"]["mlflow_run_id"]
    noise = np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "new.jpg")
    with served(version.description, tmp_path / "serve.log") as code:
        (answer,) = ask(code, tmp_path)
    said = command.run("predict", "tiny/full/0", str(tmp_path / "new.jpg"))
    assert answer["class"] in list("0123456789")
    assert f"{answer['class']}" in said.stdout.split(), said.stdout + said.stderr
    assert answer["probability"] == answer[f"p({answer['class']})"]
    assert sum(answer[f"p({name})"] for name in "0123456789") == pytest.approx(1, abs=1e-5)
