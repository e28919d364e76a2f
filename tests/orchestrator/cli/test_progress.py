"""Tests of the live table and of the lines that are printed where there is no terminal."""

import io
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from orchestrator.cli.progress import (
    _print_changes,
    _print_time_left,
    cells,
    epochs_done,
    progress_table,
    time_left,
)
from orchestrator.config.yaml_loader import built_in_studies, read_file
from orchestrator.planning.run import Run
from orchestrator.reporting.comparison import State
from orchestrator.storage.run_records import Store
from orchestrator.tracking.mlflow_client import TrackedRun
from orchestrator.tracking.run_states import RunState, SearchState, Submission
from tests.conftest import finish_run


def state(
    name: str = "A",
    status: str = "PENDING",
    reason: str = "",
    metrics: dict[str, float] | None = None,
    tags: dict[str, str] | None = None,
    **progress: Any,
) -> RunState:
    """A Run of four epochs as MLflow has it. metrics None: MLflow does not know it."""
    run = Run(
        stage="A",
        label=name,
        seed=0,
        key=f"key-{name.lower()}",
        parent=None,
        parent_label=None,
        trainable="classify",
        select="val/accuracy",
        predicts=True,
        artifacts="",
        config={"epochs": 4, "dataset": "digits"},
        dataset="f" * 16,
        weights=None,
        code="c" * 16,
    )
    tracked = None if metrics is None else TrackedRun("id", status, tags or {}, metrics, "1")
    return RunState(run, status, "id" if tracked else None, progress, reason, tracked)


FIGURES = {"train/loss": 0.25, "val/accuracy": 0.5, "test/accuracy": 0.75}
RUNNING = {"done": 2.0, "loss": 0.125, "images_per_s": 1234.5, "seconds_left": 61.4}


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        (state(), ("A seed 0", "pending", "0/4", "", "", "", "", "")),
        (state(status="RUNNING", metrics={}), ("A seed 0", "running", "0/4", "", "", "", "", "")),
        (
            state(status="RUNNING", metrics=FIGURES, **RUNNING),
            ("A seed 0", "running", "2/4", "val/accuracy 0.500", "0:01:01", "0.125", "1234", ""),
        ),
        (
            state(status="RUNNING", metrics={}, done=0.0, loss=0.0, images_per_s=0.0),
            ("A seed 0", "running", "0/4", "", "", "", "", ""),
        ),
        (
            state(status="FINISHED", metrics=FIGURES, tags={"epochs": "3"}, **RUNNING),
            ("A seed 0", "finished", "3/4", "test/accuracy 0.750", "", "0.250", "", ""),
        ),
        (
            state(status="FINISHED", metrics=FIGURES, tags={"epochs": "4", "kind": "reused"}),
            ("A seed 0", "reused", "4/4", "test/accuracy 0.750", "", "0.250", "", ""),
        ),
        (
            state(status="FAILED", metrics={}, reason="diverged", **RUNNING),
            ("A seed 0", "failed", "2/4", "", "", "0.125", "", "diverged"),
        ),
        (
            state(status="KILLED", metrics={}, reason="", done=1.3),
            ("A seed 0", "killed", "1/4", "", "", "", "", ""),
        ),
        (
            state(status="BLOCKED", reason="P seed 0 FAILED"),
            ("A seed 0", "blocked", "0/4", "", "", "", "", "P seed 0 FAILED"),
        ),
    ],
    ids=lambda value: value.state.lower() if isinstance(value, RunState) else "",
)
def test_the_cells_of_a_run_show_its_state(item: RunState, expected: tuple[str, ...]) -> None:
    assert cells(item) == expected


def test_epochs_are_counted_by_the_result_else_by_the_progress() -> None:
    assert epochs_done(state()) == 0
    assert epochs_done(state(metrics={}, done=2.9)) == 2
    assert epochs_done(state(metrics={}, epoch=2, part=0.9)) == 2  # as earlier versions wrote it
    assert epochs_done(state(metrics={}, tags={"epochs": "3"}, done=2.0)) == 3


def rendered(items: list[RunState], width: int = 80, details: bool = False, left: str = "") -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(progress_table(items, details=details, left=left))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def built_in_labels() -> list[str]:
    """Labels of all built-in studies, with the grids of a stage and of its parents."""
    labels = []
    for path in built_in_studies().values():
        stages = read_file(path)["stages"]
        for name, stage in stages.items():
            values = [f"{key}={options[-1]}" for key, options in stage.get("grid", {}).items()]
            parent = stage.get("after")
            while parent:
                grid = stages[parent].get("grid", {})
                values += [f"{parent}.{key}={options[-1]}" for key, options in grid.items()]
                parent = stages[parent].get("after")
            labels.append(f"{name}[{','.join(values)}]" if values else name)
    return labels


GRID = "late_rotation[optimizer=adamw,batch_size=128,rotation.weight_decay=0.0005]"


@pytest.mark.parametrize("details", [False, True])
@pytest.mark.parametrize("width", [80, 100, 140])
def test_a_table_fits_the_terminal_and_breaks_no_word(width: int, details: bool) -> None:
    names = [*sorted(built_in_labels(), key=len)[-8:], GRID, "x" * 60]
    items = [state(name, "RUNNING", metrics=FIGURES, **RUNNING) for name in names]
    items.append(state("broken", "FAILED", metrics={}, reason="out of memory; " * 12, **RUNNING))
    text = rendered(items, width, details)
    lines = text.splitlines()
    assert max(map(len, lines)) <= width, text
    for name in names:
        for piece in [*re.findall(r"[^\[,]+[\[,\]]?", name), " seed 0"]:
            assert any(piece.strip() in line for line in lines), f"{piece} is broken:\n{text}"
    for word in ("running", "failed", "0.500", "state", "epoch", "metric", "memory;"):
        assert any(word in line.split() for line in lines), f"{word} is broken:\n{text}"
    assert ("…" in text) != details, text
    assert not details or " ".join(text.split()).count("out of memory;") == 12, text


def test_columns_leave_a_narrow_table_in_their_order() -> None:
    item = state("late_rotation", "RUNNING", metrics=FIGURES, **RUNNING)
    headers = {width: rendered([item], width).splitlines()[0] for width in (60, 70, 80, 90)}
    assert {width: " ".join(line.split()) for width, line in headers.items()} == {
        60: "Run state epoch metric",
        70: "Run state epoch metric time left",
        80: "Run state epoch metric time left loss",
        90: "Run state epoch metric time left loss img/s",
    }


def test_details_name_what_has_no_room_in_the_row() -> None:
    item = state("late_rotation", "RUNNING", metrics=FIGURES, **RUNNING)
    text = rendered([item], 80, details=True)
    assert "img/s: 1234 · key: key-late_rotation · MLflow run: id" in text


def test_every_run_of_a_small_study_has_a_row_in_the_order_of_the_plan() -> None:
    items = [state(f"stage_{n}", "FINISHED" if n % 2 else "PENDING") for n in range(40)]
    names = [line.split()[0] for line in rendered(items).splitlines()[1:]]
    assert names == [f"stage_{n}" for n in range(40)]


def test_a_hundred_runs_are_summed_up_and_what_has_a_problem_is_shown() -> None:
    items = [state(f"done_{n}", "FINISHED") for n in range(60)]
    items += [state("broken", "FAILED"), state("now", "RUNNING"), state("held", "BLOCKED")]
    items += [state(f"waiting_{n}") for n in range(37)]
    text = rendered(items)
    assert all(name in text for name in ("broken", "now", "held"))
    assert "done_" not in text
    assert "waiting_" not in text
    summary = next(line for line in text.splitlines() if line.startswith("A: Runs"))
    assert " ".join(summary.split()) == "A: Runs 1 running, 1 failed, 1 blocked 60/100"
    counts = "1 BLOCKED, 1 FAILED, 60 FINISHED, 37 PENDING, 1 RUNNING"
    assert counts in " ".join(text.split())
    assert len(text.splitlines()) < 10


def test_a_table_never_grows_beyond_a_terminal() -> None:
    items = [state(f"run_{n}", "RUNNING") for n in range(100)]
    lines = rendered(items).splitlines()
    assert len(lines) <= 45
    assert "100 RUNNING" in lines[-1]


@pytest.mark.parametrize("width", [80, 200])
def test_a_large_study_has_a_row_for_each_stage_with_its_best_figure(width: int) -> None:
    items = [
        replace(item, run=replace(item.run, stage=f"stage_{n % 3}"))
        for n in range(300)
        for item in [state(f"run_{n}", "FINISHED", metrics={"val/accuracy": n / 1000})]
    ]
    items[7] = replace(items[7], state=State.KILLED, reason="node lost")
    lines = rendered(items, width=width).splitlines()
    assert [" ".join(line.split()) for line in lines[1:4]] == [
        "stage_0: Runs done 100/100 best val/accuracy 0.297",
        "stage_1: Runs 1 killed 99/100 best val/accuracy 0.298",
        "stage_2: Runs done 100/100 best val/accuracy 0.299",
    ]
    assert "run_7 seed 0" in lines[4] and "node lost" in lines[5]
    assert max(map(len, lines)) <= width


@pytest.mark.parametrize("name", ["A[lr=0.1]", "A[epochs=3,P.lr=0.1]", "C[B.early_stopping=None]"])
def test_a_label_with_a_grid_is_shown_whole(name: str) -> None:
    assert f"{name} seed 0" in rendered([state(name, "RUNNING")])


REASON = "no space left [Errno 28] in [/tmp/store]"


def test_a_reason_is_shown_as_it_was_given() -> None:
    failed = [state(status="FAILED", metrics={}, reason=REASON)]
    assert f"\n    {REASON}\n" in rendered(failed)
    assert f"\n    {REASON}\n" in rendered(failed, details=True)


def test_a_long_reason_takes_one_line_and_all_lines_in_the_details() -> None:
    failed = [state("full_random", "FAILED", metrics={}, reason="word " * 60, **RUNNING)]
    text = rendered(failed)
    assert "full_random seed 0" in text
    assert "2/4" in text
    assert text.endswith("word …\n")
    assert len(text.splitlines()) == 3
    assert max(map(len, text.splitlines())) <= 80
    assert rendered(failed, details=True).split().count("word") == 60


def printed(*calls: list[RunState]) -> list[str]:
    """The lines that are printed over several looks at a study."""
    console = Console(file=io.StringIO(), width=80)
    shown: dict[Any, Any] = {}
    for items in calls:
        _print_changes(items, shown, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def test_without_a_terminal_each_change_is_one_line() -> None:
    begun = state("A", "RUNNING", metrics={}, done=0.0)
    later = state("A", "RUNNING", metrics=FIGURES, **RUNNING)
    done = state("A", "FINISHED", metrics=FIGURES, tags={"epochs": "4"})
    waiting = state("B")
    calls = ([state(), waiting], [begun, waiting], [begun, waiting], [later], [later], [done])
    assert printed(*calls) == [
        "A seed 0: running, epoch 0/4",
        "A seed 0: running, epoch 2/4, loss 0.125, val/accuracy 0.500, 1234 images/s, 0:01:01 left",
        "A seed 0: finished, epoch 4/4, loss 0.250, test/accuracy 0.750",
    ]


def test_a_producer_counts_images_and_shows_even_a_slow_speed() -> None:
    sam = state(
        "sam", "RUNNING", metrics={}, done=5.0, total=12, unit="images", images_per_s=0.04321
    )
    producing = replace(sam, run=replace(sam.run, artifacts="sam"))
    assert printed([producing]) == ["sam seed 0: running, images 5/12, 0.043 images/s"]


def test_a_line_holds_labels_and_reasons_whole() -> None:
    failed = state("A[lr=0.1]", "FAILED", metrics={}, reason=REASON)
    assert printed([failed]) == [f"A[lr=0.1] seed 0: failed: {REASON}, epoch 0/4"]


def test_a_collapse_is_reported_while_it_runs_and_after():
    facts = {"warning": "the embedding has collapsed by epoch 5"}
    running = state(status="RUNNING", metrics={}, facts=facts, **RUNNING)
    assert cells(running).note == "the embedding has collapsed by epoch 5"
    assert printed([running])[0].startswith("A seed 0: running: the embedding has collapsed by ")
    done = state(status="FINISHED", metrics=FIGURES, tags=facts)
    assert cells(done).note == "the embedding has collapsed by epoch 5"


def test_a_run_without_accuracy_shows_its_knn_accuracy():
    item = state(status="RUNNING", metrics={"val/knn_accuracy": 0.875}, **RUNNING)
    assert cells(item).metric == "val/knn_accuracy 0.875"


def test_the_details_show_whose_weights_a_run_started_from() -> None:
    fact = "122 encoder tensors from byol epoch 4, fingerprint 67e33aef9c23"
    item = state(status="FINISHED", metrics=FIGURES, tags={"weight_transfer": fact})
    assert fact in rendered([item], 140, details=True)
    assert f"weights: {fact}" in " ".join(rendered([item], 80, details=True).split())
    assert fact not in rendered([item], 140)


def submission(*runs: RunState, **tags: str) -> Submission:
    return Submission(TrackedRun("id", "RUNNING", tags, {}, "1"), {}, runs)


def test_time_left_is_known_once_a_run_of_each_kind_has_run(tmp_path: Path) -> None:
    store, waiting = Store(tmp_path), state("B")
    assert time_left(submission(waiting, at_once="1"), store) == ""
    running = state("A", "RUNNING", metrics={}, done=2.0, seconds_left=60.0)
    assert time_left(submission(running, at_once="1"), store) == "about 60 s left"
    # as fast as the one that runs: 30 s an epoch
    assert time_left(submission(running, waiting, at_once="1"), store) == "about 3 min left"
    assert time_left(submission(waiting, running, at_once="2"), store) == "about 2 min left"
    assert time_left(submission(running, waiting), store) == ""  # before the driver knows
    done = state("C", "FINISHED", metrics={})
    finish_run(store, done.run.key, seconds=40.0, epochs=4)
    assert time_left(submission(done, waiting, at_once="1"), store) == "about 40 s left"
    assert time_left(submission(done, at_once="1"), store) == ""


def test_time_left_stands_below_the_table_and_in_a_line_of_its_own() -> None:
    assert "about 3 min left" in rendered([state()], left="about 3 min left")
    console, printed = Console(file=io.StringIO(), width=80), dict[str, tuple[object, ...]]()
    for left in ("", "about 3 min left", "about 3 min left", "about 2 min left"):
        _print_time_left(left, printed, console)
    assert console.file.getvalue() == "about 3 min left\nabout 2 min left\n"  # type: ignore[attr-defined]


def test_an_unfinished_search_leaves_the_time_open(tmp_path: Path) -> None:
    running = state("A", "RUNNING", metrics={}, done=2.0, seconds_left=60.0)
    item = SearchState({"stage": "A", "count": 3}, State.RUNNING, "", {}, None, None)
    searched = replace(submission(running, at_once="1"), searches=(item,))
    assert time_left(searched, Store(tmp_path)) == ""
    ended = replace(searched, searches=(replace(item, state=State.FINISHED),))
    assert time_left(ended, Store(tmp_path)) == "about 60 s left"


def test_while_runs_run_the_others_say_what_they_wait_for() -> None:
    first, second = state("first", "RUNNING", metrics={}), state("second")
    after = state("third")
    after = replace(after, run=replace(after.run, parent=first.run.key, stage="tuned"))
    first = replace(first, run=replace(first.run, stage="pretrain"))
    seen = rendered([first, second, after])
    assert re.search(r"second seed 0 +waits for room", seen)
    assert re.search(r"third seed 0 +waits for pretrain", seen)
    done = replace(first, state=State.FINISHED)
    assert seen.count("waits") == 2 and "waits" not in rendered([done, second, after])
