"""The commit of a checkout is known where the product was installed from it, as long as both hold
the same code."""

import os
import sys
from pathlib import Path

import pytest

from tests.installed import copy_source, run

ASK = "from orchestrator.planning.commit import git_commit; print(git_commit())"
PERSON = ("-c", "user.name=a", "-c", "user.email=a@b.c")


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout of this code, installed from its folder and by git into folders beside it."""
    folder = copy_source(tmp_path_factory.mktemp("commit") / "a checkout")
    git = ("git", "-C", str(folder), *PERSON)
    run(*git, "init", "-q")
    run(*git, "add", "-A")
    run(*git, "commit", "-q", "-m", "all")
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--no-deps")
    for site, origin in (("site", str(folder)), ("by git", f"git+{folder.as_uri()}")):
        options = ("--no-build-isolation", "--no-compile", "--target", str(folder.parent / site))
        run(*pip, *options, origin)
    return folder


def said_by(root: Path) -> str:
    """What the product says that lies in a folder."""
    environment = {**os.environ, "PYTHONPATH": str(root)}
    return run(sys.executable, "-c", ASK, cwd=root.parent, env=environment).strip()


def test_a_checkout_and_what_was_installed_from_it_have_one_commit(checkout: Path) -> None:
    head = run("git", "-C", str(checkout), "rev-parse", "HEAD").strip()
    assert len(head) == 40
    assert said_by(checkout) == head
    assert {said_by(checkout.parent / site) for site in ("site", "by git")} == {head}


def test_a_checkout_that_has_changed_since_is_not_named(checkout: Path) -> None:
    (checkout / "trainables" / "new.py").write_text("")
    assert said_by(checkout.parent / "site") == "None"
    (checkout / "trainables" / "new.py").unlink()


def test_a_copy_without_a_checkout_has_none(tmp_path: Path) -> None:
    assert said_by(copy_source(tmp_path / "copy")) == "None"
