"""What Prometheus is shown of a study: its Runs by state, epochs and speed."""

from pathlib import Path

from orchestrator.meters.gauges import STATES, Figures, Standing, figures_of
from orchestrator.storage.run_records import Store


def reported(store: Store, key: str, done: float, speed: float, unit: str = "epochs") -> None:
    writer = store.run(key).writer(store.run(key).begin_attempt())
    progress = {"done": done, "total": 9, "unit": unit, "images_per_s": speed}
    writer.report({**progress, "history": [], "facts": {}})


def test_runs_are_counted_by_state_and_what_trains_adds_up(tmp_path: Path) -> None:
    store = Store(tmp_path)
    reported(store, "done", 4.0, 100.0)
    reported(store, "failed", 1.0, 50.0)
    reported(store, "one", 2.6, 10.5)
    reported(store, "two", 0.2, 20.0)
    reported(store, "images", 7, 3.0, unit="images")
    ended = {"done": "FINISHED", "failed": "FAILED", "blocked": "BLOCKED"}
    keys = ["done", "failed", "blocked", "one", "two", "images", "starts", "waits", "waits"]
    standing = Standing(keys, ["one", "two", "images", "starts"], ended)
    assert figures_of(store, standing) == Figures(
        {"waiting": 1, "running": 4, "done": 1, "failed": 2}, epochs=7, images_per_s=33.5
    )


def test_a_study_without_runs_shows_zeros(tmp_path: Path) -> None:
    nothing = figures_of(Store(tmp_path), Standing([], [], {}))
    assert nothing == Figures(dict.fromkeys(STATES, 0), epochs=0, images_per_s=0.0)
