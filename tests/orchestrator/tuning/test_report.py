"""The table of trials has a line for each, in the order in which they were drawn."""

from orchestrator.storage.home import Home
from orchestrator.storage.trial_log import Trial
from orchestrator.tuning.report import as_csv, importance_of
from tests.orchestrator.tuning.searches import SEARCH, open_search


def test_the_table_has_a_line_a_trial():
    trials = [
        Trial(0, {"lr": 0.1}, "k0", "A[lr=0.1]", "FINISHED", 4, 0.75, 3, ended=90.0),
        Trial(1, {"lr": 1.0}, "", "", "FAILED", reason="too large, it says", ended=91.0),
    ]
    assert as_csv(trials, "val/accuracy", ["lr"]).splitlines() == [
        "trial,state,epochs,best_epoch,minutes,val/accuracy,lr,run_key,reason",
        "0,FINISHED,4,3,1.50,0.75,0.1,k0,",
        '1,FAILED,0,,1.52,,1.0,,"too large, it says"',
    ]


def test_the_most_important_parameter_comes_first_and_pbt_has_none(digits_home: Home):
    space = {"momentum": {"uniform": [0.0, 0.9]}, "lr": {"log": [1e-4, 0.1]}}
    tuner, _ = open_search(digits_home, {**SEARCH, "trials": 12, "space": space, "seed": 33})
    drawn = [tuner.book.draw(index) for index in range(12)]
    trials = [
        Trial(t.index, t.values, t.key, t.label, "FINISHED", 2, -t.values["lr"], 2) for t in drawn
    ]
    assert next(iter(importance_of(tuner.planned, trials))) == "lr"
    form = {**SEARCH, "trials": 12, "scheduler": "pbt", "space": space, "seed": 33}
    tuner, _ = open_search(digits_home, form)
    assert importance_of(tuner.planned, trials) == {}
