"""Read YAML safely (no repeated keys, numbers as in YAML 1.2), apply `--set`, find study files.

Numbers are those of YAML 1.2: `010` is ten, `1e-3` a number, `1:30` and `1_000` are words, and so
is a date. Words for true and false are those of YAML 1.1 (`yes`, `no`, `on`, `off`), since
configurations use them; where one is a key or stands for a name, the error says how to quote it.
"""

import functools
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import yaml

from orchestrator.config.errors import StudyError, printable, quoted, read_as, suggestion
from trainables.files import only_files


class YamlError(Exception):
    """A YAML text is wrong; one line that names the line of the text."""


_MAX_SIZE = 1_000_000  # values and letters of a file: aliases of aliases grow without bound
_LONGEST_NAME = 4096  # as a path may be
_MAX_DIGITS = 100  # of a number: PyYAML's time grows with their square
# mappings that a study may leave out: --set creates them
_MAY_BE_NEW = ("config", "resources", "compare", "grid", "reference", "early_stopping")
_TAG = "tag:yaml.org,2002:"
_MERGE, _INT, _FLOAT = f"{_TAG}merge", f"{_TAG}int", f"{_TAG}float"
_BOOL, _STR = f"{_TAG}bool", f"{_TAG}str"
# of YAML 1.2's core schema; PyYAML's own are those of 1.1
_INTEGER = re.compile(r"^(?:[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)$")
_FLOATING = re.compile(
    r"^(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?"
    r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
)


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
        except (yaml.YAMLError, YamlError, RecursionError, MemoryError):
            raise
        except Exception as error:  # PyYAML lets through whatever a wrong value raises
            raise YamlError(
                f"line {line}: {quoted(node.value)} does not fit its YAML tag {node.tag}"
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
        if (key_node.tag, key_node.value) == (_BOOL, "on"):
            key_node.tag = _STR  # the key of `notify`: YAML 1.1 alone takes it for true
        key = loader.construct_object(key_node, deep=True)
        line = key_node.start_mark.line + 1
        if not isinstance(key_node, yaml.ScalarNode):
            raise YamlError(f"line {line}: a key must be a plain value, not a list or mapping")
        if not isinstance(key, str):
            raise YamlError(f"line {line}: key {read_as(key_node.value, key)}")
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


def _not_plain(loader: _Loader, node: yaml.Node) -> None:
    _unknown_tag(loader, "", node)


def _text(loader: _Loader, node: yaml.ScalarNode) -> str:
    text = str(loader.construct_scalar(node))
    if printable(text) != text:
        line = node.start_mark.line + 1
        raise YamlError(f"line {line}: {quoted(text)} holds a character that is no text")
    return text


def _integer(loader: _Loader, node: yaml.ScalarNode) -> int:
    if not _INTEGER.match(node.value):
        raise ValueError(node.value)
    return int(node.value, {"0o": 8, "0x": 16}.get(node.value[:2], 10))


def _floating(loader: _Loader, node: yaml.ScalarNode) -> float:
    if not _FLOATING.match(node.value):
        raise ValueError(node.value)
    return float(re.sub(r"\.(?=[iInN])", "", node.value))


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)
_Loader.add_constructor(f"{_TAG}str", _text)
_Loader.add_constructor(_INT, _integer)
_Loader.add_constructor(_FLOAT, _floating)
for _name in ("timestamp", "binary", "omap", "pairs", "set"):  # no plain values
    _Loader.add_constructor(_TAG + _name, _not_plain)
_Loader.add_multi_constructor("", _unknown_tag)
_Loader.yaml_implicit_resolvers = {
    letter: [(tag, rule) for tag, rule in rules if tag in (f"{_TAG}bool", f"{_TAG}null", _MERGE)]
    for letter, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(_INT, _INTEGER, list("-+0123456789"))
_Loader.add_implicit_resolver(_FLOAT, _FLOATING, list("-+.0123456789"))


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
        return parse(read_text(path))
    except UnicodeDecodeError as error:
        raise YamlError(f"is not UTF-8 text (byte {error.start})") from error
    except OSError as error:
        raise YamlError(f"cannot be read: {error.strerror}") from error


def read_text(path: Path) -> str:
    """Read a text file. Raises YamlError where it is too large, else OSError or
    UnicodeDecodeError."""
    with open(path, "rb", opener=only_files) as file:
        content = file.read(4 * _MAX_SIZE + 1)  # bytes of a letter
    if len(content) > 4 * _MAX_SIZE:
        raise _too_large()
    return content.decode("utf-8")


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
            held = quoted(target[part])
            raise YamlError(f"{dotted}: holds {held}, which has no keys (--set {key})")
        target = target[part]
    target[last] = value


class Words:
    """Finds what a study file, or `--set`, says at a dotted key, before it was read as a number or
    as true or false: `words("stages.A.config.watch[0]")` → `0013`."""

    def __init__(self, path: Path, settings: Iterable[str]) -> None:
        self._text = functools.cache(lambda: read_text(path))
        pairs = [setting.partition("=")[::2] for setting in settings]
        self._settings = [(key, value) for key, value in pairs if _is_yaml(value)]

    def __call__(self, key: str) -> str | None:
        """Return the word; None where there is none. The last `--set` that holds it counts."""
        for place, text in ((place.strip(), text) for place, text in reversed(self._settings)):
            if key == place or key.startswith((f"{place}.", f"{place}[")):
                return _word_at(_composed(text), key[len(place) :])
        return _word_at(_composed(self._text()), key)


@functools.lru_cache(maxsize=4)  # a wrong list has thousands of errors
def _composed(text: str) -> yaml.Node | None:
    return yaml.compose(text, Loader=_Loader)


def _is_yaml(text: str) -> bool:
    try:
        _composed(text)
    except (yaml.YAMLError, RecursionError):
        return False
    return True


def _word_at(node: yaml.Node | None, key: str) -> str | None:
    """Return the word at a dotted key below a node."""
    for part in re.findall(r"[^.\[\]]+", key):
        if isinstance(node, yaml.MappingNode):
            node = next((value for name, value in node.value if name.value == part), None)
        elif isinstance(node, yaml.SequenceNode) and part.isdigit():
            node = node.value[int(part)] if int(part) < len(node.value) else None
        else:
            return None
    return node.value if isinstance(node, yaml.ScalarNode) else None


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
    return "a list" if isinstance(value, list) else quoted(value)


BUILT_IN = Path(__file__).parents[1] / "studies"


def built_in_studies() -> dict[str, Path]:
    """Return name → file of the studies that come with the package."""
    return {path.stem: path for path in sorted(BUILT_IN.glob("*.yaml"))}


def find(study: str) -> Path:
    """Return the file of a study that is given by its built-in name or as a file.

    Raises StudyError.
    """
    path = Path(study)
    # no error where the name is too long, or a link leads to itself
    there = os.path.exists(study) and not os.path.isdir(study)
    if path.suffix in (".yaml", ".yml") or path.name != study or there:
        if not there:
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
    """Return the name of a study that is given by its file or name, also if the file is gone.

    Raises StudyError where no study can have such a name.
    """
    try:
        name = str(read_file(find(study)).get("study", study))
    except StudyError:
        name = study
    if printable(name) != name or len(name) > _LONGEST_NAME:
        raise StudyError(name, ["no study has such a name"])
    return name
