"""Names the networks of timm, as `timm:NAME`, and the version of timm that builds them.

Nothing here loads timm or torch, which takes seconds: a plan reads it.
"""

import difflib
import functools
import importlib.util
import re
from importlib import metadata
from pathlib import Path

TIMM = "timm:"  # begins the names of its networks in a study
_REGISTERED = re.compile(r"^@register_model\s*\n(?:@[^\n]*\n)*def (\w+)\(", re.MULTILINE)


def is_timm(name: str) -> bool:
    """Return whether a backbone is a network of timm."""
    return name.startswith(TIMM)


def timm_version() -> str:
    """Return the version of timm that is installed. Raises ValueError where none is."""
    try:
        return metadata.version("timm")
    except metadata.PackageNotFoundError as error:
        cure = "pip install 'vision-orchestrator[timm]'"
        raise ValueError(f"timm is not installed: {cure}") from error


def check_timm(name: str) -> None:
    """Raise ValueError where timm is not installed, or has no network of a name, `timm:NAME`."""
    version, known = timm_version(), _known()
    inner = name.removeprefix(TIMM)
    if inner in known:
        return
    network, _, tag = inner.partition(".")
    if network in known:
        raise ValueError(
            f"backbone {name!r} names weights ({tag}), which are not downloaded: write "
            f"{TIMM}{network}, and give their file as `weights`"
        )
    near = difflib.get_close_matches(network, known, 1)
    hint = f": did you mean '{TIMM}{near[0]}'?" if near else ""
    raise ValueError(f"timm {version} has no network {inner!r}{hint}")


@functools.cache
def _known() -> frozenset[str]:
    """Return the names of all networks of timm, as its own files register them."""
    package = importlib.util.find_spec("timm")
    folders = [Path(place) for place in (package and package.submodule_search_locations) or ()]
    files = [file for folder in folders for file in (folder / "models").rglob("*.py")]
    return frozenset(
        name for file in files for name in _REGISTERED.findall(file.read_text(encoding="utf-8"))
    )
