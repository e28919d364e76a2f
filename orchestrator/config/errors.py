"""Errors as lines that a user can act on: the dotted key, what is wrong, the nearest name."""

import copy
import difflib
import typing
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from trainables.config import Config

AnyConfig = TypeVar("AnyConfig", bound=Config)


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
        head = f"{source}: {count} error{'s' if count > 1 else ''}"
        super().__init__("\n".join([head, *(f"  {line}" for line in self.errors)]))


class ErrorList:
    """Collects errors, so that a user sees all of them at once. `lines` holds one for each."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def add(self, key: str, message: str) -> None:
        """Add `key: message`; the message alone where key is empty."""
        self.lines.append(f"{key}: {message}" if key else message)

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
        self.add(key, _message(item, model, path, wrong))


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
    choices = [str(item) for item in known]
    close = difflib.get_close_matches(str(name), choices, n=1)
    if close:
        return f" (did you mean {close[0]!r}?)"
    return f" ({kind}: {', '.join(choices)})" if choices else " (there are none)"


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
    return f"{text}, not {value!r}"


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
