"""Write a report as a file: the page itself, or a PDF that Chromium prints of it."""

import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

from orchestrator.config.errors import Refused, one_line

FORMS = {"html": "html", "pdf": "pdf", "latex": "tex"}  # of `--format` → ending of the file
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
_SECONDS = 120.0  # that a browser may take


def write_file(path: Path, text: str) -> None:
    """Write a text. Raises Refused where the file cannot be written."""
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise Refused(f"cannot write {path}: {error.strerror}", 1) from error


def find_browser() -> str | None:
    """Return the path of Chromium or Chrome; None where neither is installed."""
    return next(filter(None, map(shutil.which, BROWSERS)), None)


def write_pdf(page: str, path: Path) -> None:
    """Print a page to a PDF file. page: the HTML text. Raises Refused where there is no browser, or
    where it fails."""
    browser = find_browser()
    if browser is None:
        raise Refused(
            "--format pdf needs Chromium, which is not installed: install it (on Debian: apt-get "
            "install chromium), or write the page with --format html and print it from a browser",
            1,
        )
    with tempfile.TemporaryDirectory() as folder:
        source, printed = Path(folder, "report.html"), Path(folder, "report.pdf")
        source.write_text(page, encoding="utf-8")
        options = [f"--user-data-dir={folder}/profile", f"--print-to-pdf={printed}"]
        said = run_browser(browser, [*options, "--no-pdf-header-footer", source.as_uri()])
        if not printed.is_file():
            last = said.strip().splitlines()[-1:] or ["it says nothing"]
            raise Refused(f"{browser} has printed no PDF: {one_line(last[0], 300)}", 1)
        try:
            shutil.copyfile(printed, path)
        except OSError as error:
            raise Refused(f"cannot write {path}: {error.strerror}", 1) from error


def run_browser(browser: str, options: list[str]) -> str:
    """Run a browser without a window. Returns what it says. Raises Refused where it does not end.

    As root it runs without its sandbox, which it refuses to start otherwise; the page runs no
    script.
    """
    command = [browser, "--headless", "--disable-gpu", "--no-first-run", "--disable-extensions",
               "--disable-background-networking", "--disable-dev-shm-usage",
               *(["--no-sandbox"] if os.geteuid() == 0 else []), *options]  # fmt: skip
    # a session of its own: what the browser starts ends with it
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
    )
    try:
        out, _ = process.communicate(timeout=_SECONDS)
    except subprocess.TimeoutExpired as error:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        raise Refused(f"{browser} has not ended within {_SECONDS:.0f} s", 1) from error
    return out.decode(errors="replace")
