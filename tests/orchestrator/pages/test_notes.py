"""The notes that MLflow shows beside a submission and beside its experiment."""

from orchestrator.pages.notes import LENGTH, experiment_note, mean_metrics, submission_note

TABLE = "| label | mean |\n|---|---|\n| A | 0.5 |"


def test_a_submission_shows_its_table_then_its_plots() -> None:
    pages = {"All charts": "#/experiments/1", "Pictures": ""}
    note = submission_note(TABLE, "abc", ["plots/bars.png"], pages)
    plot = "![bars.png](get-artifact?path=plots%2Fbars.png&run_uuid=abc)"
    assert note == f"{TABLE}\n\n[All charts](#/experiments/1)\n\n{plot}"


def test_a_long_table_is_cut_after_a_line_and_the_plots_stay() -> None:
    table = "\n".join(f"| row {number:04d} | 0.5 |" for number in range(1000))
    note = submission_note(table, "abc", ["plots/bars.png"], {})
    assert len(note) <= LENGTH
    assert note.endswith("run_uuid=abc)")
    lines = note.partition("\n\n")[0].splitlines()
    assert all(line.endswith("| 0.5 |") for line in lines)
    assert len(lines) > 100


def test_the_newest_submission_stands_first_and_each_stands_once() -> None:
    note = experiment_note("", "one", "first", "A wins")
    note = experiment_note(note, "two", "second", "B wins")
    assert note.index("second") < note.index("first")
    note = experiment_note(note, "one", "first", "A wins after all")
    assert note.index("first") < note.index("second")
    assert note.count("## first") == 1
    assert "A wins\n" not in note


def test_what_a_person_wrote_stays() -> None:
    for mine in ("Ask Ann before you delete this.", "# My notes\n\n- one\n- two"):
        note = experiment_note(mine, "one", "first", "A wins")
        note = experiment_note(note, "two", "second", "B wins")
        assert note.count(mine) == 1
        assert note.endswith(mine)
    text = "x" * LENGTH
    assert experiment_note(text, "one", "first", "A wins") == text


def test_the_oldest_answers_leave_a_full_note() -> None:
    note = "mine"
    for number in range(20):
        note = experiment_note(note, f"run{number}", f"submission {number}", "word " * 150)
        assert len(note) <= LENGTH
    assert "submission 19" in note
    assert "submission 15" in note
    assert "## submission 2\n" not in note
    assert note.endswith("mine")


def test_means_have_names_that_mlflow_takes() -> None:
    row = {"label": "late[lr=0.1,x=a%20b]", "metric": "test/accuracy", "mean": 0.5}
    rows = [row, {**row, "label": "plain"}, {**row, "label": "none", "mean": None}]
    assert mean_metrics(rows) == {
        "mean/test/accuracy/late lr 0.1 x a 20b": 0.5,
        "mean/test/accuracy/plain": 0.5,
    }
