"""Choose the charts that answer a study: which metrics, in which section, as MLflow 3.17 stores
them in a view."""

from collections.abc import Iterable, Mapping
from typing import Any

from orchestrator.pages.pictures import picture_charts
from trainables.metrics import EFFECTIVE_RANK, EMBEDDING_STD, KNN, LOSS

ANSWER, TRAINING, PICTURES = "The answer", "While it trains", "Pictures"  # names of sections
# Metrics that no chart here shows get a section of MLflow's own, named by their first part. These
# are listed so that they stand below ours, closed.
_OTHERS = ("test", "val", "train")
_MOST_BARS = 100  # more groups would be no chart
_PROBED = ("byol",)  # trainables whose features are looked at while they train

Chart = dict[str, Any]


def charts_of(plan: Mapping[str, Any]) -> tuple[list[Chart], list[dict[str, Any]]]:
    """Return charts and sections. plan: as `to_plain` writes it.

    The first section has the compared metric after the test, its curve over validation, and the
    loss; the second what else chooses checkpoints, and what tells of features.
    """
    compare, runs = plan["compare"], plan["runs"]
    bars = min(_MOST_BARS, max(20, len({run["label"] for run in runs})))
    metric = str(compare["metric"])
    curve = f"val/{metric.partition('/')[2] or metric}"
    answer = [_bar(metric, bars), *(_line(name, bars) for name in dict.fromkeys([curve, LOSS]))]
    answer += [_bar(_of_test(name), bars) for name in compare.get("figures", ())]
    shown = {chart["metricKey"] for chart in answer}
    watched = [run["select"] for run in runs]
    if any(run["trainable"] in _PROBED for run in runs):
        watched += [KNN, EMBEDDING_STD, EFFECTIVE_RANK]
    training = [_line(name, bars) for name in _new(watched, shown)]
    groups = {ANSWER: answer, TRAINING: training}
    sections = [_section(name, shown=True) for name, charts in groups.items() if charts]
    sections += [_section(name, shown=False) for name in _OTHERS]
    return _placed(groups), sections


def pictures_of(plan: Mapping[str, Any]) -> tuple[list[Chart], list[dict[str, Any]]]:
    """Return charts of pictures over epochs, with a slider, and their section. plan: as above."""
    pictures = picture_charts(plan)
    charts = [_pictures(title, keys) for title, keys in pictures.items()]
    large = {"columns": 1, "cardHeight": 640}  # px; three rows of pictures, and the slider
    others = [_section(name, shown=False) for name in _OTHERS]
    return _placed({PICTURES: charts}), [_section(PICTURES, shown=True) | large, *others]


def _placed(groups: Mapping[str, list[Chart]]) -> list[Chart]:
    """Return the charts of all sections, each with its place. groups: section → charts."""
    numbered = [(name, chart) for name, charts in groups.items() for chart in charts]
    return [
        {**chart, "uuid": f"chart-{number}", "metricSectionId": _section_id(name)}
        for number, (name, chart) in enumerate(numbered)
    ]


def _new(names: Iterable[str], shown: set[str]) -> list[str]:
    """Return each name once, without those that are shown, and without the number of the epoch."""
    return [name for name in dict.fromkeys(names) if name not in shown and name != "epoch"]


def _of_test(figure: str) -> str:
    return figure if "/" in figure else f"test/{figure}"


def _bar(metric: str, bars: int) -> Chart:
    return _chart("BAR", metric, bars)


def _line(metric: str, bars: int) -> Chart:
    own = {"selectedMetricKeys": [metric], "xAxisKey": "step", "useGlobalXaxisKey": True}
    return _chart("LINE", metric, bars) | own


def _pictures(title: str, keys: list[str]) -> Chart:
    """Return a grid: a row for each key, a column for each Run. It begins with the first epoch, of
    which every Run has pictures."""
    own = {"imageKeys": keys, "step": 1, "showRunParams": False, "displayName": title}
    return _chart("IMAGE", "", 20) | own


def _chart(kind: str, metric: str, bars: int) -> Chart:
    return {
        "type": kind,
        "metricKey": metric,
        "displayName": metric,
        "runsCountToCompare": bars,
        "deleted": False,
        "isGenerated": False,
    }


def _section(name: str, shown: bool) -> dict[str, Any]:
    return {
        "uuid": _section_id(name),
        "name": name,
        "display": shown,
        "isReordered": False,
        "deleted": False,
        "isGenerated": not shown,
    }


def _section_id(name: str) -> str:
    return "section-" + name.lower().replace(" ", "-")
