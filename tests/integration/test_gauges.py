"""The gauges of a study that trains are served by Ray's own port of metrics, where they are on."""

import json
import re
import shutil
from pathlib import Path

import pytest
import requests

from orchestrator.cli.services import SCRAPED
from orchestrator.storage.home import Home
from tests.integration.command import ALONE, Command, wait_for

pytestmark = pytest.mark.slow
EPOCHS = 3000  # more than the test waits for


@pytest.fixture
def measured(tmp_path: Path):
    """A home of its own whose settings turn the gauges on."""
    made = Command(tmp_path)
    (tmp_path / "orchestrator.yaml").write_text("gauges: true\n")
    yield made
    made.run("stop", "gauged")
    made.run("down")
    shutil.rmtree(Home(made.home).ray_temp.parent)


def test_prometheus_reads_runs_epochs_and_speed_without_a_token(measured: Command):
    told = measured.run("up")
    assert told.returncode == 0, told.stderr
    (file,) = re.findall(rf"Prometheus +(/\S+{SCRAPED})", told.stdout)
    submitted = measured.start("submit", measured.study("gauged", epochs=EPOCHS, form=ALONE))
    try:
        running = 'ray_orchestrator_runs{.*state="running",study="gauged".*} 1.0'
        page = wait_for(lambda: found if re.search(running, found := scraped(file)) else "")
        assert re.search('ray_orchestrator_runs{.*state="waiting",study="gauged".*} 0.0', page)
        speed = wait_for(lambda: value(scraped(file), "orchestrator_images_per_second"))
        epochs = wait_for(lambda: value(scraped(file), "orchestrator_epochs"))
        assert speed > 1 and epochs >= 1
    finally:
        measured.run("stop", "gauged")
        submitted.communicate()


def scraped(file: str) -> str:
    """All that the addresses say which Ray lists for Prometheus."""
    if not Path(file).is_file():
        return ""
    pages = []
    for address in (one for part in json.loads(Path(file).read_text()) for one in part["targets"]):
        try:
            pages.append(requests.get(f"http://{address}/metrics", timeout=60).text)
        except requests.RequestException:
            continue  # it is not up yet
    return "\n".join(pages)


def value(page: str, name: str) -> float:
    found = re.search(rf'ray_{name}{{.*study="gauged".*}} ([0-9.e+]+)', page)
    return float(found[1]) if found else 0.0
