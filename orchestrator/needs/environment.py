"""Defines the form of `environment:`: packages and variables that a study's processes get on a
cluster.

Values of secrets stand in no file: a study names variables, and the command takes their values from
its own environment when it submits.
"""

import re
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field, model_validator

from trainables.config import Config

_OURS = ("RAY_", "ORCHESTRATOR_")  # variables that the product and Ray set
_NAMED = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
VariableName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
Package = Annotated[str, Field(pattern=r"\S")]


class Environment(Config):
    """Says what the processes of a study get beside the product: packages that Ray installs on each
    node, and environment variables. It is in no key of a Run."""

    pip: list[Package] = Field(
        default=[],
        description="packages that pip installs on each node, such as `[timm==1.0.19]`; those of "
        "the node stay",
    )
    uv: list[Package] = Field(default=[], description="the same by uv, which is quicker")
    env: dict[VariableName, str] | list[VariableName] = Field(
        default={},
        description="name → text, or `${NAME}`: the value that NAME has where the study is "
        "submitted. A list of names takes all of them from there. Such values are written nowhere",
    )

    @model_validator(mode="after")
    def _is_possible(self) -> "Environment":
        if self.pip and self.uv:
            raise ValueError("has `pip` and `uv`: Ray installs by one of both")
        for name, value in self._variables().items():
            if name.startswith(_OURS):
                raise ValueError(f"env.{name}: names with {' or '.join(_OURS)} are set by others")
            if "$" in value and not _NAMED.fullmatch(value):
                raise ValueError(
                    f"env.{name}: a value is a text without `$`, or `${{NAME}}` and nothing else"
                )
        return self

    def _variables(self) -> dict[str, str]:
        if isinstance(self.env, Mapping):
            return dict(self.env)
        return {name: f"${{{name}}}" for name in self.env}

    @property
    def packages(self) -> dict[str, list[str]]:
        """Return what Ray installs: `pip` or `uv` → packages; empty where nothing is."""
        listed = {"pip": self.pip, "uv": self.uv}
        return {name: list(packages) for name, packages in listed.items() if packages}

    @property
    def plain(self) -> dict[str, str]:
        """Return the variables whose value is no secret."""
        return {name: text for name, text in self._variables().items() if "$" not in text}

    @property
    def sources(self) -> dict[str, str]:
        """Return variable → name of the one of the command that holds its value."""
        found = {name: _NAMED.fullmatch(text) for name, text in self._variables().items()}
        return {name: match[1] for name, match in found.items() if match is not None}

    def over(self, others: "Environment") -> "Environment":
        """Return this environment, with what others have and this one does not. Packages are taken
        from one of both, variables one by one."""
        own, theirs = self.written(), others.written()
        if self.packages:
            theirs = {name: value for name, value in theirs.items() if name == "env"}
        variables = {**others._variables(), **self._variables()}
        return Environment.model_validate({**theirs, **own, "env": variables})

    def written(self) -> dict[str, Any]:
        """Return the keys that are written, as plain data."""
        return self.model_dump(mode="json", exclude_unset=True)
