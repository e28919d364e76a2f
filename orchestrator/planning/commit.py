"""Find the git commit of the code that runs, in a checkout or installed from one."""

import json
import subprocess
import urllib.parse
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import TypedDict

from orchestrator.planning.code_version import PACKAGES, tree_version

_NAME = "vision-orchestrator"
_ORIGIN = "direct_url.json"  # where pip writes what it has installed (PEP 610)


class Code(TypedDict):
    """Names the code that runs: a digest of its files, and its commit."""

    tree: str
    git_commit: str | None


def code_that_runs() -> Code:
    """Return what names the code that runs."""
    return Code(tree=tree_version(), git_commit=git_commit())


def git_commit() -> str | None:
    """Return the commit of the checkout that runs, or of the one that this code was installed from,
    as long as it holds the same code. None where there is none."""
    here = PACKAGES[0].parent
    if (here / ".git").exists():
        return _head(here)
    origin = _origin()
    if "vcs_info" in origin:
        return str(origin["vcs_info"].get("commit_id") or "") or None
    url = urllib.parse.urlsplit(str(origin.get("url", "")))
    folder = Path(urllib.parse.unquote(url.path))
    if url.scheme != "file" or not (folder / ".git").exists():
        return None
    return _head(folder) if tree_version(folder) == tree_version() else None


def _origin() -> dict[str, dict[str, str]]:
    """Return what pip has written of the installed package; empty where it was not pip."""
    try:
        installed = distribution(_NAME)
        if Path(str(installed.locate_file(""))).resolve() != PACKAGES[0].parent.resolve():
            return {}  # another copy of this product
        text = installed.read_text(_ORIGIN)
        return dict(json.loads(text)) if text else {}
    except (PackageNotFoundError, OSError, ValueError):
        return {}


def _head(folder: Path) -> str | None:
    command = ["git", "-C", str(folder), "rev-parse", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
