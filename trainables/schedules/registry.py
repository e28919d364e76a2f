"""The schedules a configuration may name. To add one: write its file, add one line here."""

from trainables.schedules.constant import constant
from trainables.schedules.contract import Schedule
from trainables.schedules.cosine import cosine
from trainables.schedules.poly import poly
from trainables.schedules.step import step

SCHEDULES: dict[str, Schedule] = {
    "cosine": cosine,
    "step": step,
    "constant": constant,
    "poly": poly,
}
