"""Write a t-SNE map as an HTML page, which names the image under the pointer."""

import html
from collections.abc import Sequence
from typing import Any

import numpy as np
from plotly.io import to_html

from orchestrator.drawing.tsne_plot import (
    Map,
    area_of_point,
    caption,
    class_style,
    shortened_name,
)

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; form-action 'none'; \
script-src 'unsafe-inline' 'unsafe-eval'; style-src 'unsafe-inline'; img-src data: blob:">
<title>t-SNE, {title}</title>
<style>html, body {{ height: 100%; margin: 0 }}</style>
</head>
<body>
{division}
</body>
</html>
"""


def tsne_page(tsne_map: Map, names: Sequence[str]) -> str:
    """Return the map as an HTML page that loads nothing else: about 5 MB, most of it plotly.js.

    It names the image and the class under the pointer; a click in the legend hides a class.
    names: one per image. Raises ValueError for another number of names.
    """
    if len(names) != len(tsne_map.points):
        raise ValueError(f"{len(names)} names for {len(tsne_map.points)} images")
    shown = range(len(tsne_map.classes)) if tsne_map.knn is not None else [-1]
    traces = [_trace(tsne_map, names, number) for number in shown]
    figure = {"data": traces, "layout": _layout(tsne_map)}
    config = {
        "showSendToCloud": False,  # plotly's default is a button that uploads the picture
        "displaylogo": False,
        "scrollZoom": True,
        "modeBarButtonsToRemove": ["select2d", "lasso2d"],
    }
    division = to_html(figure, config, full_html=False, validate=False, div_id="map")
    return _PAGE.format(title=html.escape(caption(tsne_map)), division=division)


def _trace(tsne_map: Map, names: Sequence[str], number: int) -> dict[str, Any]:
    """Plotly's description of the points of one class."""
    own, style = np.flatnonzero(tsne_map.labels == number), class_style(number)
    name = tsne_map.classes[number] if number >= 0 else "unlabelled"
    return {
        "type": "scattergl",
        "mode": "markers",
        "name": _escaped(name, 40),
        "meta": [_escaped(name, 100)],
        "x": tsne_map.points[own, 0].round(3).tolist(),
        "y": tsne_map.points[own, 1].round(3).tolist(),
        "text": [_escaped(names[image], 100) for image in own.tolist()],
        "hovertemplate": "%{text}<br>%{meta[0]}<extra></extra>",
        "marker": {
            "color": style.color,
            "symbol": style.symbol + "-open" * style.hollow,
            "size": 1.4 * area_of_point(len(tsne_map.points)) ** 0.5 + 2,
            "line": {"color": style.color if style.hollow else "white", "width": 0.5},
        },
    }


def _escaped(name: str, most: int) -> str:
    """Return the name shortened, with <, > and & escaped: plotly reads HTML tags in its texts."""
    return html.escape(shortened_name(name, most), quote=False)


def _layout(tsne_map: Map) -> dict[str, Any]:
    (x, y), axis = tsne_map.limits, {"visible": False, "constrain": "domain"}
    return {
        "title": {"text": caption(tsne_map), "font": {"size": 14}},
        "xaxis": {**axis, "range": x},
        "yaxis": {**axis, "range": y, "scaleanchor": "x"},
        "showlegend": tsne_map.knn is not None,
        "legend": {"itemsizing": "constant"},
        "margin": {"l": 10, "r": 10, "t": 50, "b": 10},
        "font": {"family": "sans-serif"},
        "hovermode": "closest",
        "dragmode": "pan",
    }
