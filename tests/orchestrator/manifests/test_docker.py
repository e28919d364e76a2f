"""The Dockerfile is one, and installs this project as it is tested."""

import io
import sys

from dockerfile_parse import DockerfileParser

from tests.installed import ROOT
from tests.orchestrator.manifests.samples import printed


def test_it_installs_the_clone_with_the_tested_versions(capsys) -> None:
    parser = DockerfileParser(fileobj=io.BytesIO(printed("docker", capsys).encode()))
    assert parser.baseimage == f"python:{sys.version_info.major}.{sys.version_info.minor}-slim"
    found = [(line["instruction"], line["value"]) for line in parser.structure]
    steps = [item for item in found if item[0] != "COMMENT"]
    assert [name for name, _ in steps] == ["FROM", "RUN", "COPY", "RUN", "ENV", "WORKDIR"]
    assert "--constraint /source/constraints.txt /source" in steps[3][1]
    assert (ROOT / "constraints.txt").is_file()


def test_the_image_has_the_name_that_is_asked_for(capsys) -> None:
    assert "docker push here/vision:3" in printed("docker", capsys, "--image", "here/vision:3")
