"""Errors as lines that a user can act on: the dotted key, what is wrong, the nearest name."""

import copy
import difflib
import json
import typing
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from trainables.config import Config

AnyConfig = TypeVar("AnyConfig", bound=Config)
_KEY_LENGTH, _LENGTH = 200, 1000  # letters of an error line: more hides what is wrong
_VALUE_LENGTH = 200  # letters of a value that is quoted
_MOST_ERRORS = 50  # that are printed; the rest is counted
_MOST_NAMES = 50  # that a message lists
_SEARCHED = 2000  # names among which the nearest one is looked for
_MARKS = "\u2028\u2029\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"


def printable(text: str) -> str:
    """Replace what would command a terminal (escape sequences, marks that turn the direction of
    writing) or cannot be encoded by its code, such as `\\x1b`. Line ends and tabs stay."""
    line = text.replace("\n", "").replace("\t", "")
    if line.isascii() and line.isprintable():  # a text of megabytes takes no time
        return text
    return "".join(_shown(letter) for letter in text)


def one_line(text: str, length: int = _LENGTH) -> str:
    """Return a text as a single printable line of at most `length` letters."""
    line = printable(" ".join(text.splitlines()) if "\n" in text or "\r" in text else text)
    return line if len(line) <= length else f"{line[: length - 4]} ..."


def quoted(value: object) -> str:
    """Return the `repr` of a value, cut where it is long."""
    return one_line(repr(value), _VALUE_LENGTH)


def _shown(letter: str) -> str:
    if letter in "\n\t":
        return letter
    if unicodedata.category(letter) in ("Cc", "Cs") or letter in _MARKS:
        code = ord(letter)
        if 0xDC80 <= code <= 0xDCFF:  # a byte of a file name that is not UTF-8
            return f"\\x{code - 0xDC00:02x}"
        return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"
    return letter


class UserError(Exception):
    """An error that a user can act on: `str()` is the message, `status` the exit status.

    UserError
    ├── StudyError      2  the study, `--set` or mlflow.yaml is wrong
    ├── HomeError       2  the home cannot be written
    ├── Refused         1 or 2  the command cannot be carried out
    ├── UnknownPlan     1  a stored plan was written by another version
    ├── DoesNotFit      1  a Run asks for more than the cluster has
    ├── ServiceError    1  Ray or MLflow cannot be started or reached
    └── TrackingError   1  MLflow did not answer, or refused
    """

    status = 1


class Refused(UserError):
    """The command cannot be carried out; the message is one line."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class StudyError(UserError):
    """One or more errors in a study or in `--set`."""

    status = 2

    def __init__(self, source: str, errors: Iterable[str]) -> None:
        self.source, self.errors = source, list(dict.fromkeys(errors))
        count = len(self.errors)
        head = f"{one_line(source, _KEY_LENGTH)}: {count} error{'s' if count > 1 else ''}"
        lines = [one_line(line, _KEY_LENGTH + _LENGTH) for line in self.errors[:_MOST_ERRORS]]
        if count > _MOST_ERRORS:
            lines.append(f"and {count - _MOST_ERRORS} more")
        super().__init__("\n".join([head, *(f"  {line}" for line in lines)]))


class ErrorList:
    """Collects errors, so that a user sees all of them at once. `lines` holds one for each.

    written: dotted key → the word that stands there in the file, as in `yaml_loader.Words`.
    """

    def __init__(self, written: Callable[[str], str | None] | None = None) -> None:
        self.lines: list[str] = []
        self.written = written

    def add(self, key: str, message: str) -> None:
        """Add `key: message`; the message alone where key is empty."""
        message = one_line(message)
        self.lines.append(f"{one_line(key, _KEY_LENGTH)}: {message}" if key else message)

    def validate(self, model: type[AnyConfig], value: Any, prefix: str = "") -> AnyConfig | None:
        """Return a checked instance, or None after adding every error under its dotted key.

        prefix: dotted key of `value` itself.
        """
        try:
            return model.model_validate(value)
        except ValidationError as error:
            for item in error.errors():
                self._add_item(item, model, value, prefix)
            return None

    def _add_item(self, item: ErrorDetails, model: type[Config], value: Any, prefix: str) -> None:
        path, wrong = _path(item["loc"], value)
        key = ".".join([prefix] * bool(prefix) + path)
        if item["type"] == "string_type" and isinstance(wrong, bool | int | float | None):
            word = (self.written(key) if self.written else None) or json.dumps(wrong)
            self.add(key, read_as(word, wrong))
        else:
            self.add(key, _message(item, model, path, wrong))


def read_as(word: str, value: bool | int | float | None) -> str:
    """Say what YAML takes a word for, and how to write it as a name."""
    word = one_line(word, 100)
    kind = {bool: "true or false", type(None): "nothing"}.get(type(value), "a number")
    return f'`{word}` is read as {kind}, and text is needed: write "{word}"'


def without_errors(model: type[AnyConfig], value: Mapping[str, Any]) -> AnyConfig | None:
    """Validate without the values that have errors, so that the rest can be checked too. Returns
    None where the rest is not valid alone."""
    rest = copy.deepcopy(dict(value))
    try:
        return model.model_validate(rest)
    except ValidationError as error:
        for item in error.errors():
            path, _ = _path(item["loc"], rest)
            owner: Any = rest
            for part in path[:-1]:
                owner = owner.get(part) if isinstance(owner, dict) else None
            if isinstance(owner, dict) and path:
                owner.pop(path[-1].split("[")[0], None)
    try:
        return model.model_validate(rest)
    except ValidationError:
        return None


def suggestion(name: str, known: Iterable[str], kind: str = "there are") -> str:
    """Return ` (did you mean 'x'?)` for the nearest known name, else the list of all of them.

    kind: the words before that list.
    """
    choices = [one_line(str(item), _VALUE_LENGTH) for item in known]
    close = difflib.get_close_matches(str(name)[:_VALUE_LENGTH], choices[:_SEARCHED], n=1)
    if close:
        return f" (did you mean {close[0]!r}?)"
    more = f" and {len(choices) - _MOST_NAMES} more" if len(choices) > _MOST_NAMES else ""
    listed = f"{', '.join(choices[:_MOST_NAMES])}{more}"
    return f" ({kind}: {listed})" if choices else " (there are none)"


def _path(location: tuple[int | str, ...], value: Any) -> tuple[list[str], Any]:
    """Return the keys that lead to an error in the user's data, and the value there.

    location: pydantic's, which also names branches of unions; these are left out.
    """
    path: list[str] = []
    for part in location:
        if isinstance(value, Mapping) and part in value:
            path.append(str(part))
            value = value[part]
        elif isinstance(value, list) and isinstance(part, int) and path:
            path[-1] += f"[{part}]"
            value = value[part]
        elif isinstance(value, Mapping) and part == location[-1]:  # a missing key
            path.append(str(part))
    return path, value


def _message(item: ErrorDetails, model: type[Config], path: list[str], value: Any) -> str:
    kind = item["type"]
    text = item["msg"][0].lower() + item["msg"][1:]
    if kind == "extra_forbidden":
        owner = _config_at(model, path[:-1])
        return "unknown key" + (suggestion(path[-1], owner.model_fields, "keys") if owner else "")
    if kind == "missing":
        return "is missing"
    if kind == "value_error":
        return str(item.get("ctx", {}).get("error", text))
    return f"{text}, not {quoted(value)}"


def _config_at(model: type[Config] | None, path: list[str]) -> type[Config] | None:
    """Return the Config class whose keys stand at `path`, None if there is none."""
    rest = iter(path)
    for part in rest:
        field = model.model_fields.get(part.split("[")[0]) if model else None
        if field is None:
            return None
        if typing.get_origin(field.annotation) is dict:
            next(rest, None)  # a name the user chose
        model = next(_configs_in(field.annotation), None)
    return model


def _configs_in(annotation: Any) -> Iterator[type[Config]]:
    if isinstance(annotation, type) and issubclass(annotation, Config):
        yield annotation
    for inner in typing.get_args(annotation):
        yield from _configs_in(inner)


def innermost(error: BaseException) -> str:
    """Return in a line what an error of a request wraps, such as `Connection refused`."""
    inner = [getattr(error, "reason", None), *reversed(error.args), error.__cause__]
    wrapped = next((item for item in inner if isinstance(item, BaseException)), None)
    if wrapped is not None:
        return innermost(wrapped)
    return one_line(str(error).rpartition("a new connection: ")[2], 200)
