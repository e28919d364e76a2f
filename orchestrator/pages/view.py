"""Make the view of MLflow's runs page that opens on a study's answer.

MLflow 3.17 keeps a shared view in a tag of the experiment and opens it by its key. The format is
that of its page, not an API: `tests/integration/test_pages.py` opens it in a browser, and a server
of another version gets no view, but a plain address.
"""

import base64
import json
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

from orchestrator.pages.charts import charts_of, pictures_of

VERSIONS = ("3.17.",)  # of MLflow, whose page was seen to open such a view
TAG = "mlflow.sharedViewState."  # of an experiment; the view's key follows
_LABEL = "orchestrator.label"
# columns of the table, from left to right; the state is the sign before a Run's name
_COLUMNS = (
    f"tags.`{_LABEL}`",
    "params.`seed`",
    "metrics.`{metric}`",
    "tags.`orchestrator.starts_from`",
    "tags.`orchestrator.reason`",
)


def knows_views(version: str) -> bool:
    """Tell whether the page of a server of this version opens such a view."""
    return version.startswith(VERSIONS)


def own_runs(submission: str) -> str:
    """Return the search filter of a submission's own Runs. submission: id of its MLflow run."""
    return f"tags.`mlflow.parentRunId` = '{submission}'"


def pictures_key(view: str) -> str:
    """Return the key of the view of a submission's pictures. view: of that of its answer."""
    return f"{view}-pictures"


def shared_views(plan: Mapping[str, Any], submission: str, now: int) -> dict[str, str]:
    """Return the views of a submission as key → value of the tag: its answer under its own id, and
    its pictures over epochs, where its Runs draw some. plan: as `to_plain` writes it; submission:
    id of its MLflow run; now: time in ms."""
    grouped = {"groupByKeys": [{"mode": "tag", "groupByData": _LABEL}]}
    answer = _state(plan, submission, *charts_of(plan))
    answer["groupBy"] = {"aggregateFunction": "average", **grouped}
    views = {submission: _packed("The answer", answer, now)}
    charts, sections = pictures_of(plan)
    if charts:  # a group has no pictures: these are of each Run
        state = _state(plan, submission, charts, sections)
        # the page shows pictures of its first ten Runs: the first seed of each label comes first
        state["orderByKey"] = "params.`seed`"
        views[pictures_key(submission)] = _packed("Pictures over epochs", state, now)
    return views


def _packed(name: str, state: Mapping[str, Any], now: int) -> str:
    text = json.dumps(state, separators=(",", ":"))
    packed = base64.b64encode(zlib.compress(text.encode(), 9)).decode("ascii")
    view = {"name": name, "createdAt": now, "updatedAt": now, "state": f"deflate;{packed}"}
    return json.dumps(view)


def _state(
    plan: Mapping[str, Any],
    submission: str,
    charts: Sequence[Mapping[str, Any]],
    sections: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """Return what the page remembers of itself: filter, order, columns, charts."""
    metric = plan["compare"]["metric"]
    return {
        "searchFilter": own_runs(submission),
        "orderByKey": f"tags.`{_LABEL}`",  # ordered by time they would hide below their parent
        "orderByAsc": True,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "datasetsFilter": [],
        "modelVersionFilter": "All Runs",
        "selectedColumns": [column.format(metric=metric) for column in _COLUMNS],
        "columnOrder": [],
        "columnWidths": {},
        "runsExpanded": {},
        "runsPinned": [],
        "runsHidden": [],
        "runsVisibilityMap": {},
        "runsHiddenMode": "SHOW_ALL",
        "compareRunCharts": charts,
        "compareRunSections": sections,
        "viewMaximized": False,
        "runListHidden": False,
        "isAccordionReordered": True,  # our sections stay above those that the page adds
        "useGroupedValuesInCharts": True,
        "hideEmptyCharts": True,
        "groupBy": None,
        "groupsExpanded": {},
        "autoRefreshEnabled": True,
        "globalLineChartConfig": {
            "xAxisKey": "step",
            "lineSmoothness": 0,
            "selectedXAxisMetricKey": "",
        },
    }
