"""Draws a model: a box per block with shape, size and cost, an arrow per flow of data.

The figure reads from top to bottom. Branches that rejoin the main path stand to its right, branches
that end elsewhere (an auxiliary head) to its left.
"""

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Patch
from matplotlib.path import Path

from trainables.monitoring.architecture import Architecture, Block, shown

_WIDTH, _HEIGHT, _GAP = 3.8, 0.72, 0.42  # of a box in inches, and between two levels
_FILLS = {"trained": "#CFE3F5", "frozen": "#D9D9D9", "no parameters": "#FFFFFF"}
_UNITS = ((1e9, "G"), (1e6, "M"), (1e3, "k"))


def draw_architecture(model: Architecture) -> Figure:
    """Return the figure of a whole model."""
    lanes = lanes_of(model)
    left, right, deepest = min(lanes), max(lanes), max(model.levels)
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
    for block, lane, level in zip(model.blocks, lanes, model.levels, strict=True):
        _draw_box(axes, block, lane, level * step, unit)
    for start, end in model.flows:
        ends = [(lanes[place], model.levels[place] * step) for place in (start, end)]
        _draw_arrow(axes, *ends)
    axes.set_title(_title(model), fontsize=11, loc="center", parse_math=False)
    used = {_state(block) for block in model.blocks}
    handles = [
        Patch(facecolor=fill, edgecolor="#555555", label=label)
        for label, fill in _FILLS.items()
        if label in used
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, fontsize=9, frameon=False)
    return figure


def lanes_of(model: Architecture) -> list[int]:
    """Return the column of every block; 0 is the main path, the longest model."""
    after: dict[int, list[int]] = {place: [] for place in range(len(model.blocks))}
    before: dict[int, list[int]] = {place: [] for place in range(len(model.blocks))}
    for start, end in model.flows:
        after[start].append(end)
        before[end].append(start)
    remaining = [0] * len(model.blocks)  # levels below a block
    goal = max(range(len(model.blocks)), key=lambda place: model.levels[place])
    on_path = {goal}  # blocks from which data reaches the end of the main path
    for place in reversed(range(len(model.blocks))):
        remaining[place] = max((remaining[end] + 1 for end in after[place]), default=0)
        if on_path & set(after[place]):
            on_path.add(place)
    lanes, taken = [0] * len(model.blocks), set()
    for place in sorted(after, key=lambda place: (model.levels[place], -remaining[place], place)):
        lane = min((lanes[start] for start in before[place]), key=abs, default=0)
        while (lane, model.levels[place]) in taken:
            lane += 1 if place in on_path else -1
        lanes[place] = lane
        taken.add((lane, model.levels[place]))
    return lanes


def _draw_box(axes: Axes, block: Block, lane: int, y: float, unit: float) -> None:
    """Draw a block with its name, kind, shape, parameters and mult-adds. unit: of an inch in x."""
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
    """Draw an arrow that runs along the outer of its two lanes, where no box is in its way."""
    (first, top), (second, bottom) = start, end
    top, bottom = top + _HEIGHT / 2, bottom - _HEIGHT / 2
    turn = top + _GAP / 2 if abs(second) > abs(first) else bottom - _GAP / 2
    corners = [(first, top), (first, turn), (second, turn), (second, bottom)]
    axes.add_patch(
        FancyArrowPatch(
            path=Path(corners), arrowstyle="-|>", mutation_scale=11, color="#555555",
            linewidth=1.1, zorder=0.5, joinstyle="round", shrinkA=0, shrinkB=0,
        )
    )  # fmt: skip


def _title(model: Architecture) -> str:
    trained = sum(block.trained for block in model.blocks)
    frozen = "" if trained == model.parameters else f", {in_units(trained)} of them trained"
    return (
        f"{model.title}: {in_units(model.parameters)} parameters{frozen}; "
        f"{in_units(model.mult_adds)} mult-adds per sample"
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
