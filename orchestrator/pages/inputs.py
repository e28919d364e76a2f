"""Describe data sets as MLflow lists them with a run: one entry for each part, with its size."""

import json
from collections.abc import Mapping
from typing import Any

_DIGEST = 36  # letters that MLflow takes


def dataset_name(name: str, part: str) -> str:
    """Return the name of a part of a data set, such as `digits/test`."""
    return f"{name}/{part}"


def dataset_digest(fingerprint: str) -> str:
    """Return the beginning of a data set's fingerprint, as MLflow takes it."""
    return fingerprint[:_DIGEST]


def dataset_inputs(name: str, facts: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return what `runs/log-inputs` takes. name: what the study calls the data set; facts: what
    `data.json` says of it: fingerprint, images of each part, classes."""
    fingerprint, classes = str(facts["fingerprint"]), list(facts.get("classes", ()))
    source = json.dumps({"fingerprint": fingerprint})
    return [
        {
            "dataset": {
                "name": dataset_name(name, part),
                "digest": dataset_digest(fingerprint),
                "source_type": "local",
                "source": source,
                "profile": json.dumps({"num_rows": count, "classes": len(classes)}),
            },
            "tags": [{"key": "mlflow.data.context", "value": part}],
        }
        for part, count in facts["images"].items()
        if count
    ]
