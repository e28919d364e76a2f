"""The built-in studies, and where a study's file is. Light: reading studies is `study`'s work."""

from pathlib import Path
from typing import Any

from orchestrator.faults import StudyError, near
from orchestrator.yaml_file import YamlFault, read_mapping

BUILT_IN = Path(__file__).parent / "studies"


def built_in_studies() -> dict[str, Path]:
    """Names and files of the studies that are shipped with the package."""
    return {path.stem: path for path in sorted(BUILT_IN.glob("*.yaml"))}


def find(study: str) -> Path:
    """A built-in name or a file → its path. Raises StudyError."""
    path = Path(study)
    if path.suffix in (".yaml", ".yml") or path.name != study or path.is_file():
        if not path.is_file():
            raise StudyError(study, ["there is no such file"])
        return path
    known = built_in_studies()
    if study not in known:
        raise StudyError(study, [f"no file and no built-in study{near(study, known)}"])
    return known[study]


def read_file(path: Path) -> dict[str, Any]:
    """The mapping in a study's file, unchecked. Raises StudyError."""
    try:
        return read_mapping(path)
    except YamlFault as fault:
        raise StudyError(path.name, [str(fault)]) from fault


def study_name(given: str) -> str:
    """The name of a study that is given by file or name; also when its file is gone."""
    try:
        return str(read_file(find(given)).get("study", given))
    except StudyError:
        return given
