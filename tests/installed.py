"""The product as a user has it: its wheel, installed into a virtual environment of its own."""

import atexit
import functools
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).parents[1]
_PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check")


def run(*command: str, **options: object) -> str:
    done = subprocess.run(command, capture_output=True, text=True, **options)  # type: ignore[call-overload]
    assert done.returncode == 0, done.stdout + done.stderr
    return str(done.stdout)


def wheel(folder: Path) -> Path:
    """Build the wheel in a folder, from the files that git does not ignore."""
    source, wheels = copy_source(folder / "source"), folder / "wheels"
    run(
        *_PIP, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(wheels), str(source)
    )
    (built,) = wheels.glob("*.whl")
    return built


def copy_source(source: Path) -> Path:
    """Copy the files that git does not ignore, as far as the wheel is made of them."""
    listed = ("ls-files", "--cached", "--others", "--exclude-standard")
    names = run("git", "-C", str(ROOT), *listed, "orchestrator", "trainables").split()
    for name in [*names, "pyproject.toml", "README.md", "LICENSE"]:
        if (ROOT / name).is_file():  # not deleted since the last commit
            target = source / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((ROOT / name).read_bytes())
    return source


def install(folder: Path) -> str:
    """Install the wheel in a virtual environment, among the libraries of this one. Returns its
    Python."""
    venv.create(folder / "venv")
    python = str(folder / "venv" / "bin" / "python")
    (packages,) = (folder / "venv").glob("lib/python*/site-packages")
    for library in Path(sysconfig.get_path("purelib")).iterdir():
        if not library.name.startswith(("orchestrator", "trainables", "vision_orchestrator")):
            (packages / library.name).symlink_to(library)
    run(*_PIP, "--python", python, "install", "--no-deps", "--no-index", str(wheel(folder)))
    shutil.rmtree(folder / "source")
    return python


@functools.cache
def installed_python() -> str:
    """Return the Python of one such environment for this process, removed at its end."""
    folder = Path(tempfile.mkdtemp(prefix="installed-"))
    atexit.register(shutil.rmtree, folder)
    return install(folder)


def installed_packages() -> Path:
    """Return the folder in which that Python finds the product."""
    (found,) = Path(installed_python()).parents[1].glob("lib/python*/site-packages")
    return found


def without_checkout() -> dict[str, str]:
    """Return this process's environment, without the folders where Python would find modules."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
