"""Defines the form of `resources:`: what one Run gets of the machine or cluster."""

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from orchestrator.needs.deaths import MaxFailures
from orchestrator.needs.labels import LabelName, selector_of
from orchestrator.needs.nodes import KIND_OF_GPU
from trainables.config import Config

_NOT_CUSTOM = ("CPU", "GPU", "memory", "object_store_memory")  # they have keys of their own
_PART_OF_KIND = 0.001  # of a node's `accelerator_type:A100`: enough to be placed there


class Resources(Config):
    """Says what one Run gets of the machine or cluster."""

    workers: Annotated[int, Field(ge=1, le=4096)] = Field(
        default=1, description="processes that train one Run together"
    )
    cpus_per_worker: Literal["auto"] | Annotated[int, Field(ge=1)] = Field(
        default="auto",
        description="CPUs of a worker; auto: those of its GPU (4 GPUs and 32 CPUs: 8 for each); "
        "without GPUs the workers of a Run share all CPUs equally",
    )
    gpus_per_worker: Literal["auto"] | Annotated[float, Field(ge=0)] = Field(
        default="auto",
        description="GPUs of a worker, such as 0.5; auto: one if the cluster has any",
    )
    gpu: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")] | None = Field(
        default=None,
        description="kind of GPU, as Ray names it, such as A100, H100 or T4; default: any",
    )
    memory_gb: Annotated[float, Field(gt=0)] | None = Field(
        default=None,
        description="GB (10^9 bytes) of memory that a node must have free for a worker; it is no "
        "limit of what the worker may take. Default: not asked for",
    )
    labels: dict[LabelName, str | list[str]] = Field(
        default={},
        description="labels of the nodes that may be used: `{zone: a}`, `{zone: [a, b]}` for any "
        "of both, `{market: '!spot'}` for all but one",
    )
    custom: dict[str, Annotated[float, Field(gt=0)]] = Field(
        default={},
        description="further resources of a worker, by the names that Ray's nodes were started "
        "with: `{license: 1}`",
    )
    max_failures: MaxFailures = Field(
        default=MaxFailures(),
        description="how often a Run starts again after its process or node died, without a new "
        "checkpoint between the deaths: a whole number for every kind of death, or one for each",
    )
    stall_minutes: Annotated[float, Field(gt=0)] = Field(
        default=120.0,
        description="minutes without progress after which the processes of a Run end, and it "
        "starts again from its newest checkpoint; counted as a crash. Each trained batch is "
        "progress; evaluation and tests are not",
    )

    @field_validator("max_failures", mode="before")
    @classmethod
    def _of_every_kind(cls, value: Any) -> Any:
        """Let one number limit every kind of death."""
        if isinstance(value, (Mapping, MaxFailures)):
            return value
        if type(value) is not int or value < 0:
            raise ValueError(f"must be a whole number of 0 or more, or a mapping, not {value!r}")
        return dict.fromkeys(MaxFailures.model_fields, value)

    @field_validator("gpus_per_worker")
    @classmethod
    def _whole_above_one(cls, value: float | str) -> float | str:
        if not isinstance(value, str) and value > 1 and value != int(value):
            raise ValueError(f"is {value:g}: above 1 a worker gets whole GPUs only")
        return value

    @field_validator("labels")
    @classmethod
    def _are_selectors(cls, value: dict[str, str | list[str]]) -> dict[str, str | list[str]]:
        return {name: selector_of(selector) for name, selector in value.items()}

    @field_validator("custom")
    @classmethod
    def _are_rays(cls, value: dict[str, float]) -> dict[str, float]:
        for name, amount in value.items():
            if name in _NOT_CUSTOM or name.startswith((KIND_OF_GPU, "node:")) or not name.strip():
                raise ValueError(f"{name!r} has a key of its own, or is a name of Ray's own")
            if amount > 1 and amount != int(amount):
                raise ValueError(f"{name} is {amount:g}: above 1 Ray gives whole numbers only")
        return value

    @model_validator(mode="after")
    def _has_the_gpu_that_it_names(self) -> "Resources":
        if self.gpu is not None and self.gpus_per_worker == 0:
            raise ValueError(f"gpu is {self.gpu}, but gpus_per_worker is 0: remove one of both")
        return self

    def over(self, others: "Resources") -> "Resources":
        """Return these resources, with those of others where a key is not written here. Raises
        pydantic's ValidationError where both do not fit together."""
        return Resources.model_validate({**others.written(), **self.written()})

    def written(self) -> dict[str, Any]:
        """Return the keys that are written, as plain data."""
        return self.model_dump(mode="json", exclude_unset=True)

    def selectors(self) -> dict[str, str]:
        """Return label → selector, as Ray takes them."""
        return {name: str(selector) for name, selector in self.labels.items()}

    def amounts(self) -> dict[str, float]:
        """Return the further resources of a worker, with its kind of GPU, by Ray's names."""
        kind = {f"{KIND_OF_GPU}{self.gpu}": _PART_OF_KIND} if self.gpu else {}
        return {**kind, **self.custom}

    @property
    def memory(self) -> float:
        """Return the bytes of memory of a worker; 0 where none are asked for."""
        return float(math.ceil(1e9 * (self.memory_gb or 0.0)))
