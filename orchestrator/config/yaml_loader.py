"""Read YAML safely (no repeated keys, `1e-3` is a number), apply `--set`, find study files."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from orchestrator.config.errors import StudyError, suggestion


class YamlError(Exception):
    """A YAML text is wrong; one line that names the line of the text."""


_MAX_SIZE = 1_000_000  # values and letters of a file: aliases of aliases grow without bound
_MAX_DIGITS = 100  # of a number: PyYAML's time grows with their square
# mappings that a study may leave out: --set creates them
_MAY_BE_NEW = ("config", "resources", "compare", "grid", "reference", "early_stopping")
_MERGE, _INT = "tag:yaml.org,2002:merge", "tag:yaml.org,2002:int"


class _Loader(yaml.SafeLoader):
    """A safe loader whose errors name the line, and which refuses texts that grow when read."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._pairs = 0  # keys with their values, after merging

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        line = node.start_mark.line + 1
        if node.tag == _INT and len(node.value) > _MAX_DIGITS:
            raise YamlError(f"line {line}: a number of {len(node.value)} digits is too long")
        try:
            return super().construct_object(node, deep=deep)
        except (ValueError, TypeError, OverflowError) as error:
            raise YamlError(
                f"line {line}: {repr(node.value)[:100]} does not fit its YAML tag: {error}"
            ) from error

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Fill in `<<`; PyYAML calls this for every merged mapping before it copies it."""
        super().flatten_mapping(node)
        self._pairs += len(node.value)
        if self._pairs > _MAX_SIZE:
            raise _too_large()


def _too_large() -> YamlError:
    return YamlError(f"holds more than {_MAX_SIZE} letters and values")


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[Any] = set()
    for key_node, _ in node.value:
        if key_node.tag == _MERGE:
            continue
        key = loader.construct_object(key_node, deep=True)
        line = key_node.start_mark.line + 1
        if not isinstance(key, str | int | float | bool | None):
            raise YamlError(f"line {line}: a key must be a plain value, not a list or mapping")
        if key in seen:
            raise YamlError(f"line {line}: key {key!r} is written twice in the same mapping")
        seen.add(key)
    loader.flatten_mapping(node)
    return {
        loader.construct_object(key, deep=True): loader.construct_object(value, deep=True)
        for key, value in node.value
    }


def _unknown_tag(loader: _Loader, suffix: str, node: yaml.Node) -> None:
    raise YamlError(f"line {node.start_mark.line + 1}: unknown tag {node.tag!r}: use plain values")


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)
_Loader.add_multi_constructor("", _unknown_tag)
# YAML 1.2's floats: PyYAML's own rule takes `1e-3` (no dot) and `1.0e3` (no sign) for strings
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)[eE][-+]?[0-9]+$"),
    list("-+.0123456789"),
)


def _load(text: str) -> Any:
    if len(text) > _MAX_SIZE:
        raise _too_large()
    try:
        return _without_aliases(yaml.load(text, Loader=_Loader), [_MAX_SIZE])  # a SafeLoader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise YamlError(f"{where}{error.problem or error.context} (not valid YAML)") from error
    except yaml.YAMLError as error:
        raise YamlError(f"not valid YAML: {' '.join(str(error).split())}") from error
    except RecursionError as error:
        raise YamlError("nested too deeply") from error


def _without_aliases(value: Any, left: list[int]) -> Any:
    """Copy a value so that every alias becomes a value of its own. Raises YamlError if too large.

    left: one number, how many values and letters the rest may hold; it is counted down.
    """
    left[0] -= 1 + (len(value) if isinstance(value, str) else 0)
    if left[0] < 0:
        raise _too_large()
    if isinstance(value, dict):
        return {
            _without_aliases(key, left): _without_aliases(item, left) for key, item in value.items()
        }
    return [_without_aliases(item, left) for item in value] if isinstance(value, list) else value


def parse(text: str) -> dict[str, Any]:
    """Read a YAML text whose top level is a mapping. Raises YamlError."""
    value = _load(text)
    if value is None:
        raise YamlError("is empty: a mapping of keys is needed")
    if not isinstance(value, dict):
        raise YamlError(f"must be a mapping of keys at its top level, not {_kind(value)}")
    return value


def read_mapping(path: Path) -> dict[str, Any]:
    """Read a YAML file as `parse` does. Raises YamlError also when it cannot be read."""
    try:
        if path.stat().st_size > 4 * _MAX_SIZE:  # bytes of a letter
            raise _too_large()
        return parse(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise YamlError(f"is not UTF-8 text (byte {error.start})") from error
    except OSError as error:
        raise YamlError(f"cannot be read: {error.strerror}") from error


def apply_setting(mapping: dict[str, Any], setting: str) -> None:
    """Apply `KEY=VALUE`, KEY dotted, VALUE read as YAML, in place. Raises YamlError.

    Only the last key may be new, so that a misspelled stage is an error here.
    """
    key, equals, text = setting.partition("=")
    if not equals or not key.strip():
        raise YamlError(f"--set {setting}: must be KEY=VALUE, such as seeds=[0,1]")
    try:
        value = _load(text)
    except YamlError as error:
        raise YamlError(f"--set {setting}: {error}") from error
    *parents, last = key.strip().split(".")
    target: dict[str, Any] = mapping
    for depth, part in enumerate(parents):
        dotted = ".".join(parents[: depth + 1])
        if depth == 1 and parents[0] == "data" and isinstance(target.get(part), str):
            target[part] = {"type": target[part]}
        if part not in target and part in _MAY_BE_NEW:
            target[part] = {}
        if part not in target:
            raise YamlError(f"{dotted}: unknown key in --set{suggestion(part, target)}")
        if not isinstance(target[part], dict):
            raise YamlError(f"{dotted}: holds {target[part]!r}, which has no keys (--set {key})")
        target = target[part]
    target[last] = value


def values_at(mapping: Any, pattern: str) -> Iterator[tuple[dict[str, Any], str]]:
    """Yield every (mapping, key) whose dotted key matches `pattern`, in which `*` is any key."""
    first, _, rest = pattern.partition(".")
    if not isinstance(mapping, dict):
        return
    for key in list(mapping) if first == "*" else [first]:
        if key in mapping and not rest:
            yield mapping, key
        elif key in mapping:
            yield from values_at(mapping[key], rest)


def _kind(value: Any) -> str:
    return "a list" if isinstance(value, list) else f"{value!r}"


BUILT_IN = Path(__file__).parents[1] / "studies"


def built_in_studies() -> dict[str, Path]:
    """Return name → file of the studies that come with the package."""
    return {path.stem: path for path in sorted(BUILT_IN.glob("*.yaml"))}


def find(study: str) -> Path:
    """Return the file of a study that is given by its built-in name or as a file.

    Raises StudyError.
    """
    path = Path(study)
    if path.suffix in (".yaml", ".yml") or path.name != study or path.is_file():
        if not path.is_file():
            raise StudyError(study, ["there is no such file"])
        return path
    known = built_in_studies()
    if study not in known:
        raise StudyError(study, [f"no file and no built-in study{suggestion(study, known)}"])
    return known[study]


def read_file(path: Path) -> dict[str, Any]:
    """Read the mapping in a study's file, unchecked. Raises StudyError."""
    try:
        return read_mapping(path)
    except YamlError as error:
        raise StudyError(path.name, [str(error)]) from error


def study_name(study: str) -> str:
    """Return the name of a study that is given by its file or name, also if the file is gone."""
    try:
        return str(read_file(find(study)).get("study", study))
    except StudyError:
        return study
