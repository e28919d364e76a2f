"""The page in a real browser: it asks for nothing, fits a phone, runs no script of a study, and
passes an HTML validator and an accessibility check, light and dark."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.report_page.files import find_browser, write_pdf
from orchestrator.report_page.store import write_report
from orchestrator.tracking.mlflow_writer import Tracker
from tests.chromium import Page, page
from tests.mlflow_server import mlflow_server
from tests.orchestrator.report_page.submissions import HARMFUL, Sample, submit

RULES = {"extends": ["html-validate:standard", "html-validate:a11y"], "root": True}


def node_module(name: str) -> Path:
    """Folder of an npm package, below the folder that ORCHESTRATOR_NODE_MODULES names."""
    folder = Path(os.environ.get("ORCHESTRATOR_NODE_MODULES", "node_modules"), name)
    if not folder.is_dir():
        pytest.skip(f"no npm package {name}: npm install {name}, ORCHESTRATOR_NODE_MODULES=DIR")
    return folder


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a study whose question, class and failure are harmful."""
    folder = tmp_path_factory.mktemp("report")
    sample = Sample(f"Does it help? {HARMFUL}", ("cat", f"<b>{HARMFUL}"), failed=True)
    with mlflow_server(folder) as uri:
        tracker = Tracker(uri)
        submission = submit(tracker, folder / "pictures", "harmful", sample)
        text = write_report(tracker, submission, {"currency": "EUR", "gpu_hour": 2.0})
    path = folder / "report.html"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def opened(file: Path) -> Iterator[Page]:
    with page() as tab:
        tab.open(file.as_uri())
        tab.wait_for("How to repeat it")
        tab.wait_until("document.readyState == 'complete'")
        yield tab


def show(tab: Page, width: int, dark: bool = False) -> None:
    tab._call("Emulation.setDeviceMetricsOverride", width=width, height=900,
              deviceScaleFactor=1, mobile=width < 500)  # fmt: skip
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    tab._call("Emulation.setEmulatedMedia", features=[scheme])


def test_the_page_asks_for_nothing_and_every_picture_is_in_it(opened: Page, file: Path) -> None:
    assert [url for url in opened.requests if not url.startswith("data:")] == [file.as_uri()]
    shown = "[...document.images].map(image => image.naturalWidth > 0)"
    found = opened.value(shown)
    assert len(found) >= 6
    assert all(found)


def test_texts_of_a_study_are_shown_and_not_carried_out(opened: Page) -> None:
    assert opened.value("document.scripts.length") == 0
    seen = opened.text()
    assert f"Does it help? {HARMFUL}" in seen
    assert f"<b>{HARMFUL}" in seen
    assert f"the loss is not finite {HARMFUL}" in seen


@pytest.mark.parametrize("width", [375, 768, 1280])
def test_nothing_but_tables_and_wide_pictures_is_wider_than_the_window(
    opened: Page, width: int
) -> None:
    show(opened, width)
    assert opened.value("document.documentElement.scrollWidth") <= width
    outside = """[...document.querySelectorAll('body *')].filter(item =>
        !item.closest('.scroll') && !item.closest('svg') && !item.closest('.hidden') &&
        item.getBoundingClientRect().right > innerWidth + 1).map(item => item.tagName)"""
    assert opened.value(outside) == []
    letters = """Math.min(...[...document.querySelectorAll('svg text')].map(text =>
        text.getBoundingClientRect().height))"""
    assert opened.value(letters) > 9  # px: labels of charts stay readable


@pytest.mark.parametrize("dark", [False, True])
def test_axe_finds_no_error(opened: Page, dark: bool) -> None:
    axe = node_module("axe-core") / "axe.min.js"
    show(opened, 1280, dark)
    dark_paper = opened.value("getComputedStyle(document.body).backgroundColor")
    assert (dark_paper != "rgb(255, 255, 255)") == dark
    opened._call("Page.setBypassCSP", enabled=True)
    opened._call("Runtime.evaluate", expression=axe.read_text(encoding="utf-8"))
    opened.value("axe.run(document).then(found => window.found = found); 0")
    opened.wait_until("Boolean(window.found)")
    found = opened.value("""JSON.stringify(window.found.violations.map(item =>
        [item.id, item.impact, item.nodes.map(node => node.html.slice(0, 200))]))""")
    opened.value("delete window.found")
    assert json.loads(found) == []


def test_the_page_is_valid_html(file: Path, tmp_path: Path) -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("no node")
    program = node_module("html-validate") / "bin" / "html-validate.mjs"
    (tmp_path / ".htmlvalidate.json").write_text(json.dumps(RULES), encoding="utf-8")
    command = [node, str(program), "--config", str(tmp_path / ".htmlvalidate.json"), str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_pdf_is_printed(file: Path, tmp_path: Path) -> None:
    if find_browser() is None:
        pytest.skip("no Chromium on this machine (Debian: apt install chromium)")
    write_pdf(file.read_text(encoding="utf-8"), tmp_path / "report.pdf")
    content = (tmp_path / "report.pdf").read_bytes()
    assert content.startswith(b"%PDF-")
    assert content.count(b"/Type /Page\n") + content.count(b"/Type /Page ") >= 2
