"""A study that brings packages and a secret: really installed by Ray, and the secret in no file."""

import zipfile
from pathlib import Path

import pytest

from tests.integration.command import CANARY
from tests.integration.test_security import holding

pytestmark = pytest.mark.slow

NET = '''
"""A network that needs a package of the environment, and variables."""

import os

from torch import nn


def build(channels: int) -> tuple[nn.Module, int]:
    import tiny_package  # the study brings it

    assert os.environ["WIDTH"] == "4" and os.environ["TOKEN"].startswith("canary")
    return nn.Sequential(nn.Conv2d(channels, tiny_package.WIDTH, 3), nn.AdaptiveAvgPool2d(1),
                         nn.Flatten()), tiny_package.WIDTH
'''
STUDY = """
study: {name}
question: Does it bring what it needs?
code: [tiny_net.py]
environment: {{pip: ['{wheel}'], env: {{WIDTH: '4', TOKEN: '${{MY_TOKEN}}'}}}}
data: {{digits: {{type: digits, limit: 60}}}}
resources: {{cpus_per_worker: 1}}
stages:
  full: {{trainable: classify, config: {{dataset: digits, backbone: 'tiny_net:build', epochs: {epochs}, batch_size: 16, lr: {lr}}}}}
"""  # noqa: E501


def make_wheel(folder: Path) -> Path:
    """A package of one line, which no index has."""
    wheel, about = folder / "tiny_package-1.0-py3-none-any.whl", "tiny_package-1.0.dist-info"
    with zipfile.ZipFile(wheel, "w") as file:
        file.writestr("tiny_package.py", "WIDTH = 4\n")
        file.writestr(
            f"{about}/METADATA", "Metadata-Version: 2.1\nName: tiny-package\nVersion: 1.0\n"
        )
        file.writestr(
            f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        file.writestr(f"{about}/RECORD", "")
    return wheel


def test_packages_and_secrets_reach_the_workers(command, monkeypatch):
    (command.folder / "tiny_net.py").write_text(NET, encoding="utf-8")
    form = STUDY.replace("{wheel}", str(make_wheel(command.folder)))
    study = command.study("brings", form=form)
    without = command.run("submit", study)
    assert (
        without.returncode == 2
        and "not set where the study is submitted: MY_TOKEN" in without.stderr
    )
    monkeypatch.setitem(command.environment, "MY_TOKEN", f"{CANARY}-named")
    result = command.run("submit", study)
    assert result.returncode == 0, result.stdout + result.stderr
    assert command.runs("brings")["full"]["state"] == "FINISHED"
    assert holding(f"{CANARY}-named", command) == set()
