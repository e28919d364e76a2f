"""Two studies on one cluster: the urgent one gets the next place, and both end right."""

import pytest

from tests.integration.command import ALONE, wait_for

pytestmark = pytest.mark.slow


def test_an_urgent_study_gets_the_next_places(command):
    form = ALONE + "seeds: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]\n"
    usual = command.study("usual", epochs=40, form=form)
    urgent = command.study("urgent", epochs=2, lr=0.02, form=ALONE + "seeds: [0, 1, 2]\n")
    first = command.start("submit", usual)
    wait_for(lambda: list((command.home / "store").glob("*/progress.json")))
    second = command.run("submit", urgent, "--set", "priority=urgent")
    assert second.returncode == 0, second.stdout + second.stderr
    out, err = first.communicate(timeout=600)
    assert first.returncode == 0, out + err
    assert "waits for its turn: study urgent comes first" in out + err
