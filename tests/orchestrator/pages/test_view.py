"""The view that MLflow's page opens: its filter, its charts, and the addresses that name it."""

import base64
import json
import re
import zlib
from typing import Any
from urllib.parse import parse_qs, urlsplit

from orchestrator.pages.addresses import answer_address
from orchestrator.pages.charts import ANSWER, TRAINING, charts_of
from orchestrator.pages.pictures import files_of
from orchestrator.pages.view import knows_views, pictures_key, shared_views
from tests.orchestrator.pages.studies import PLAN


def state_of(plan: dict[str, Any], key: str = "abc") -> dict[str, Any]:
    """Read a view back as MLflow's page does."""
    view = json.loads(shared_views(plan, "abc", 7)[key])
    assert (view["createdAt"], view["updatedAt"]) == (7, 7)
    kind, _, packed = view["state"].partition(";")
    assert kind == "deflate"
    return json.loads(zlib.decompress(base64.b64decode(packed)))


def charts(plan: dict[str, Any], section: str) -> list[tuple[str, str]]:
    found, sections = charts_of(plan)
    (uuid,) = [item["uuid"] for item in sections if item["name"] == section]
    return [(c["type"], c["metricKey"]) for c in found if c["metricSectionId"] == uuid]


def test_the_view_shows_the_submissions_own_runs_by_label() -> None:
    state = state_of(PLAN)
    assert state["searchFilter"] == "tags.`mlflow.parentRunId` = 'abc'"
    assert state["groupBy"]["groupByKeys"] == [{"mode": "tag", "groupByData": "orchestrator.label"}]
    assert state["groupBy"]["aggregateFunction"] == "average"
    assert "metrics.`test/accuracy`" in state["selectedColumns"]


def test_the_first_charts_are_the_metric_its_curve_and_the_loss() -> None:
    expected = [("BAR", "test/accuracy"), ("LINE", "val/accuracy"), ("LINE", "train/loss")]
    assert charts(PLAN, ANSWER) == expected
    assert TRAINING not in {section["name"] for section in charts_of(PLAN)[1]}


def test_pretraining_gets_the_curves_that_tell_of_its_features() -> None:
    byol = {**PLAN["runs"][0], "trainable": "byol", "select": "val/knn_accuracy", "label": "byol"}
    plan = {**PLAN, "runs": [byol, *PLAN["runs"]]}
    names = [name for _, name in charts(plan, TRAINING)]
    assert names == ["val/knn_accuracy", "val/embedding_std", "val/effective_rank"]


def test_a_thousand_labels_make_no_longer_view() -> None:
    many = [{**PLAN["runs"][0], "label": f"label-{number}"} for number in range(1000)]
    views = shared_views({**PLAN, "runs": many}, "a" * 32, 7)
    assert max(map(len, views.values())) < 5000  # what MLflow takes


def test_pictures_have_a_view_of_their_own_where_runs_draw_some() -> None:
    assert set(shared_views(PLAN, "abc", 7)) == {"abc"}
    named = {"watch": ["a", "b", "c", "d"], "tsne_epochs": [], "epochs": 3}
    plan = {**PLAN, "runs": [{**run, "config": named} for run in PLAN["runs"]]}
    state = state_of(plan, pictures_key("abc"))
    # ten Runs have room: one of each label, not ten seeds of one
    assert (state["orderByKey"], state["orderByAsc"]) == ("params.`seed`", True)
    assert state["groupBy"] is None
    assert {chart["type"] for chart in state["compareRunCharts"]} == {"IMAGE"}
    keys = [chart["imageKeys"] for chart in state["compareRunCharts"]]
    assert keys[0] == ["watched 1 image", "watched 1 truth", "watched 1 prediction"]
    assert len(keys) == 5
    assert keys[-1] == ["t-SNE"]


def test_pictures_are_named_as_mlflows_client_names_them() -> None:
    for epoch in (1, 12):
        whole, small = files_of("watched 1 truth", epoch)
        assert re.fullmatch(
            rf"watched 1 truth\+step\+{epoch}\+timestamp\+\d+\+[\w-]{{36}}.png", whole
        )
        assert small == whole.replace(".png", "+compressed.webp")


def test_only_versions_whose_page_was_looked_at_get_a_view() -> None:
    assert knows_views("3.17.2")
    assert not any(map(knows_views, ("", "3.16.0", "3.18.0", "3.170.0", "2.22.0")))


def test_the_address_names_the_view_or_else_filters() -> None:
    def query(view: str) -> dict[str, list[str]]:
        address = urlsplit(answer_address("http://host:5000/", "3", "abc", view))
        assert (address.scheme, address.netloc, address.path) == ("http", "host:5000", "/")
        page, _, text = address.fragment.partition("?")
        assert page == "/experiments/3/runs"
        return parse_qs(text)

    training = {"workflowType": ["machine_learning"], "compareRunsMode": ["CHART"]}
    assert query("abc") == training | {"viewStateShareKey": ["abc"]}
    assert query("") == training | {"searchFilter": ["tags.`mlflow.parentRunId` = 'abc'"]}
