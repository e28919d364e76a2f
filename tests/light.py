"""Which large libraries a command loads, seen in a process of its own."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parents[1]
# each takes half a second or more to load
HEAVY = (
    "torch",
    "torchvision",
    "mlflow",
    "ray",
    "sklearn",
    "scipy",
    "pandas",
    "pyarrow",
    "matplotlib",
)
_CODE = f"""
import sys
from orchestrator.cli.main import main
status = main(sys.argv[1:])
print("LOADED", *[name for name in {HEAVY} if name in sys.modules], file=sys.stderr)
sys.exit(status)
"""


def heavy_modules(
    arguments: list[str], folder: Path, environment: Mapping[str, str] | None = None
) -> list[str]:
    """Run a command in a folder. Returns those of HEAVY that it has loaded; raises AssertionError
    where it fails."""
    done = subprocess.run(
        [sys.executable, "-c", _CODE, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), **(environment or {})},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    last = done.stderr.splitlines()[-1].split()
    assert last[0] == "LOADED", done.stderr
    return last[1:]
