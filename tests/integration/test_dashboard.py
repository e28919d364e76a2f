"""What a browser shows of the Ray dashboard, opened as `open STUDY --ray` opens it."""

import subprocess
from collections.abc import Iterator

import pytest

from tests.chromium import Page, page
from tests.installed import installed_python, without_checkout

pytestmark = pytest.mark.slow

# the field that keeps the actors of a class in the list
_CLASS = "[...document.querySelectorAll('label')].find(l => l.innerText == 'Class')?.parentElement"


@pytest.fixture
def dashboard(finished, command) -> Iterator[Page]:
    """A tab that the page of `open tiny --ray` has logged in."""
    line = [installed_python(), "-m", "orchestrator", "open", "tiny", "--ray"]
    settings = {**command.environment, "BROWSER": "true", "PYTHONUNBUFFERED": "1"}
    with page() as tab:
        with subprocess.Popen(
            [*line, "--home", command.home],
            cwd=command.folder,
            env=without_checkout() | settings,
            text=True,
            stdout=subprocess.PIPE,
        ) as process:
            assert process.stdout is not None
            tab.open(process.stdout.readline().strip())
            assert process.wait(120) == 0
        yield tab


def test_it_opens_on_the_job_of_the_study_and_names_runs_among_the_actors(dashboard, command):
    (job,) = [item for item in command.status()["studies"] if item["study"] == "tiny"]
    shown = dashboard.wait_for("SUCCEEDED", "tiny-")
    assert job["study"] in shown
    assert "#/jobs/tiny-" in dashboard.value("location.href")
    dashboard.open(dashboard.value("location.origin") + "/#/actors")
    dashboard.wait_until(f"!!{_CLASS}")
    dashboard.value(f"{_CLASS}.querySelector('input').focus()")
    dashboard.write("tiny/")  # other tests' Runs are in the list too
    dashboard.wait_for("tiny/full/0", "tiny/late/0", "tiny/rotation/0")


def test_no_address_that_the_browser_asks_has_the_token(dashboard, command):
    dashboard.wait_for("SUCCEEDED")
    token = (command.home / "ray_token").read_text().strip()
    asked = dashboard.requests
    assert any("/api/jobs/tiny-" in address for address in asked)
    assert not any(token in address for address in asked)
    assert token not in dashboard.value("location.href") + dashboard.text()
    assert dashboard.value("document.cookie") == ""  # no script of a page can read it
