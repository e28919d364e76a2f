"""Two studies on one cluster: the urgent one gets the next place, and both end right."""

import pytest

from orchestrator.storage.home import Home
from tests.integration.command import ALONE, wait_for

pytestmark = pytest.mark.slow


def test_an_urgent_study_gets_the_next_places(command):
    form = ALONE + "seeds: [0, 1, 2, 3, 4, 5, 6, 7]\n"
    usual = command.study("usual", epochs=30, form=form)
    urgent = command.study("urgent", epochs=2, lr=0.02, form=ALONE + "seeds: [0, 1, 2]\n")
    first = command.start("submit", usual)
    wait_for(lambda: list((Home(command.home).logs).glob("usual*.events")) or first.poll())
    second = command.run("submit", urgent, "--set", "priority=urgent")
    assert second.returncode == 0, second.stdout + second.stderr
    out, err = first.communicate(timeout=1800)
    assert first.returncode == 0, out + err
    assert "waits for its turn: study urgent comes first" in out + err
