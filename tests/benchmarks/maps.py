"""What does a t-SNE map of 10,000 images cost, against well-kept libraries on the same cores?"""

import os

import numpy as np
import openTSNE
import sklearn.manifold

from tests.benchmarks.turns import Line, Work, ratio, seconds, shown
from trainables.monitoring.tsne import tsne

IMAGES, WIDTH, CLASSES = 10_000, 512, 20


def measure(turns: int) -> list[Line]:
    draw = np.random.default_rng(0)
    centres = draw.normal(size=(CLASSES, WIDTH))
    labels = np.arange(IMAGES) % CLASSES
    features = (centres[labels] + draw.normal(size=(IMAGES, WIDTH))).astype(np.float32)
    cores = os.cpu_count()

    def ours() -> None:
        tsne([features])

    def theirs() -> None:
        openTSNE.TSNE(metric="cosine", n_jobs=cores, random_state=0).fit(features)

    def scikit() -> None:
        sklearn.manifold.TSNE(metric="cosine", init="random", n_jobs=cores).fit_transform(features)

    works: dict[str, Work] = {"ours": ours, "openTSNE": theirs, "scikit-learn": scikit}
    found = seconds(works, turns)
    what = f"t-SNE of {IMAGES:,} points, {WIDTH} features"
    lines = [Line(f"{what}: seconds", shown(found["ours"]), "", turns)]
    for name in ("openTSNE", "scikit-learn"):
        over = ratio(found["ours"], found[name])
        figure = f"{over:.2f} ({shown(found[name])} there)"
        lines.append(Line(f"the same over {name}'s on {cores} threads", figure, "<= 1", turns))
    return lines
