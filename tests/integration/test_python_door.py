"""The example of orchestrator/README.md does what the command line does, with its errors."""

import ast
import json
import re
import subprocess
import textwrap

import pytest

from tests.installed import ROOT, installed_python, without_checkout

pytestmark = pytest.mark.slow


def python(command, code: str) -> subprocess.CompletedProcess:
    """Run code with the installed product, in the folder and home of the command."""
    return subprocess.run(
        [installed_python(), "-c", code], cwd=command.folder, capture_output=True, text=True,
        env=without_checkout() | command.environment | {"ORCHESTRATOR_HOME": str(command.home)},
    )  # fmt: skip


@pytest.fixture(scope="module")
def done(command) -> subprocess.CompletedProcess:
    text = (ROOT / "orchestrator" / "README.md").read_text(encoding="utf-8")
    (code,) = re.findall(
        r"^```python\n(import orchestrator.*?)^```$", text, re.DOTALL | re.MULTILINE
    )
    command.study("door")
    (command.folder / "door.yaml").rename(command.folder / "study.yaml")
    return python(command, code)


def test_the_example_trains_and_compares(command, done):
    assert done.returncode == 0, done.stderr
    first, *_, last = done.stdout.strip().splitlines()
    names = [f"{label} seed {seed}" for label in ("rotation", "late", "full") for seed in (0, 1)]
    plan = ast.literal_eval(first)
    # another study of this home may have trained a Run of the same key
    assert [name for name, _ in plan] == names and {state for _, state in plan} <= {"new", "done"}
    assert last == "['bars.png', 'curves.png', 'loss.png']"
    assert (command.folder / "plots").is_dir()


def test_it_is_what_the_command_line_says(command, done):
    said = command.ask("compare", "door", "--json")
    rows = json.loads(said.stdout)["rows"]
    code = "import json, orchestrator as o; print(json.dumps(o.compare('door').plain['rows']))"
    assert json.loads(python(command, code).stdout.splitlines()[-1]) == rows
    assert {row["label"]: row["n"] for row in rows} == {"late": 2, "full": 2}
    again = "study = o.read('study.yaml', ['seeds=[0,1]'])\nprint(o.submit(study).wait())"
    done_again = python(command, f"import orchestrator as o\n{again}")
    assert "nothing to train" in done_again.stdout
    assert done_again.stdout.splitlines()[-1] == "True"


def test_errors_are_those_of_the_command_line(command, done):
    code = """
        import orchestrator as o
        for call in (
            lambda: o.read("study.yaml", ["stages.full.config.epocs=1"]),
            lambda: o.compare("never"),
        ):
            try:
                call()
            except o.UserError as error:
                print(type(error).__name__, str(error).splitlines()[-1])
    """
    said = python(command, textwrap.dedent(code)).stdout.splitlines()
    wrong = command.ask("plan", "study.yaml", "--set", "stages.full.config.epocs=1")
    assert said[0] == f"StudyError {wrong.stderr.splitlines()[-1]}"
    assert said[1] == f"Refused {command.ask('compare', 'never').stderr.strip()[7:]}"
