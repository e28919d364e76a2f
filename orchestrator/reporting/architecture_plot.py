"""A model as a picture: a box a block, an arrow for what flows, with shapes, size and cost.

To be read from top to bottom. What rejoins the main way stands to its right, what ends elsewhere
(an auxiliary head) to its left.
"""

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Patch
from matplotlib.path import Path

from trainables.monitoring.architecture import Architecture, Block, shown

_WIDTH, _HEIGHT, _GAP = 3.8, 0.72, 0.42  # of a box in inches, and between two levels
_FILLS = {"trained": "#CFE3F5", "frozen": "#D9D9D9", "no parameters": "#FFFFFF"}
_UNITS = ((1e9, "G"), (1e6, "M"), (1e3, "k"))


def draw_architecture(one: Architecture) -> Figure:
    """One figure of a whole model."""
    lanes = lanes_of(one)
    left, right, deepest = min(lanes), max(lanes), max(one.levels)
    step = _HEIGHT + _GAP
    size = ((right - left + 1) * (_WIDTH + 0.3) + 0.4, (deepest + 1) * step + 1.1)
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots()
    axes.set_axis_off()
    axes.set(
        xlim=(left - 0.55, right + 0.55),
        ylim=((deepest + 0.5) * step, -0.5 * step),
    )
    unit = 1 / (_WIDTH + 0.3)  # of an inch, where a lane is 1 wide
    for block, lane, level in zip(one.blocks, lanes, one.levels, strict=True):
        _draw_box(axes, block, lane, level * step, unit)
    for start, end in one.flows:
        ends = [(lanes[place], one.levels[place] * step) for place in (start, end)]
        _draw_arrow(axes, *ends)
    axes.set_title(_title(one), fontsize=11, loc="center", parse_math=False)
    used = {_state(block) for block in one.blocks}
    handles = [
        Patch(facecolor=fill, edgecolor="#555555", label=label)
        for label, fill in _FILLS.items()
        if label in used
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, fontsize=9, frameon=False)
    return figure


def lanes_of(one: Architecture) -> list[int]:
    """The column of every block, 0 for the main way, which is the longest."""
    after: dict[int, list[int]] = {place: [] for place in range(len(one.blocks))}
    before: dict[int, list[int]] = {place: [] for place in range(len(one.blocks))}
    for start, end in one.flows:
        after[start].append(end)
        before[end].append(start)
    left = [0] * len(one.blocks)  # levels still to go
    goal = max(range(len(one.blocks)), key=lambda place: one.levels[place])
    leads = {goal}
    for place in reversed(range(len(one.blocks))):
        left[place] = max((left[end] + 1 for end in after[place]), default=0)
        if leads & set(after[place]):
            leads.add(place)
    lanes, taken = [0] * len(one.blocks), set()
    for place in sorted(after, key=lambda place: (one.levels[place], -left[place], place)):
        lane = min((lanes[start] for start in before[place]), key=abs, default=0)
        while (lane, one.levels[place]) in taken:
            lane += 1 if place in leads else -1
        lanes[place] = lane
        taken.add((lane, one.levels[place]))
    return lanes


def _draw_box(axes: Axes, block: Block, lane: int, y: float, unit: float) -> None:
    width = _WIDTH * unit
    axes.add_patch(
        FancyBboxPatch(
            (lane - width / 2, y - _HEIGHT / 2), width, _HEIGHT, mutation_aspect=1 / unit,
            boxstyle=f"round,pad=0,rounding_size={0.08 * unit}",
            facecolor=_FILLS[_state(block)], edgecolor="#555555", linewidth=1,
        )
    )  # fmt: skip
    facts = [shown(block.shape)]
    facts += [f"{in_units(block.parameters)} parameters"] if block.parameters else []
    facts += [f"{in_units(block.mult_adds)} mult-adds"] if block.mult_adds else []
    lines = [(block.name, 10, "bold"), (block.kind, 8, "normal")]
    lines += [(" · ".join(fact for fact in facts if fact), 8, "normal")]
    lines = [line for line in lines if line[0]]
    for number, (text, size, weight) in enumerate(lines):
        offset = (number - (len(lines) - 1) / 2) * 0.2
        axes.text(lane, y + offset, text, fontsize=size, fontweight=weight, ha="center",
                  va="center", parse_math=False)  # fmt: skip


def _draw_arrow(axes: Axes, start: tuple[int, float], end: tuple[int, float]) -> None:
    """Along its own lane where that is the outer one: there is nothing in its way."""
    (one, top), (two, bottom) = start, end
    top, bottom = top + _HEIGHT / 2, bottom - _HEIGHT / 2
    turn = top + _GAP / 2 if abs(two) > abs(one) else bottom - _GAP / 2
    corners = [(one, top), (one, turn), (two, turn), (two, bottom)]
    axes.add_patch(
        FancyArrowPatch(
            path=Path(corners), arrowstyle="-|>", mutation_scale=11, color="#555555",
            linewidth=1.1, zorder=0.5, joinstyle="round", shrinkA=0, shrinkB=0,
        )
    )  # fmt: skip


def _title(one: Architecture) -> str:
    trained = sum(block.trained for block in one.blocks)
    frozen = "" if trained == one.parameters else f", {in_units(trained)} of them trained"
    return (
        f"{one.title}: {in_units(one.parameters)} parameters{frozen}; "
        f"{in_units(one.mult_adds)} mult-adds a sample"
    )


def _state(block: Block) -> str:
    if not block.parameters:
        return "no parameters"
    return "trained" if block.trained else "frozen"


def in_units(count: int) -> str:
    """12,345,678 → 12.3 M."""
    for size, unit in _UNITS:
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return str(count)
