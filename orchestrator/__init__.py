"""Decides what runs where and when: studies, plans, Ray and MLflow. Holds no tensor maths.

`read`, `plan`, `submit` and `compare` are its Python door (`orchestrator/api.py`), which is loaded
when one of its names is used.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from orchestrator.api import (
        Comparison,
        Study,
        StudyError,
        Submitted,
        UserError,
        compare,
        plan,
        read,
        submit,
    )

__all__ = [
    "Comparison",
    "Study",
    "StudyError",
    "Submitted",
    "UserError",
    "compare",
    "plan",
    "read",
    "submit",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'orchestrator' has no attribute {name!r}")
    return getattr(importlib.import_module("orchestrator.api"), name)
