"""Describes a model as plain data: its blocks, and what flows between them."""

import graphlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from trainables.dataset import DataInfo
from trainables.networks.flows import bridged, without_cycles
from trainables.trainable import Trainable

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Block:
    """One box of a drawing of the model.

    name: path in the model, or the name of a function; kind: its layers; shape: of its output for
    one sample; parameters: their number; trained: how many of them are trained; mult_adds:
    multiply-adds for one sample.
    """

    name: str
    kind: str
    shape: Shape
    parameters: int
    trained: int
    mult_adds: int


@dataclass(frozen=True)
class Architecture:
    """A model as a graph of blocks.

    title: name of the model's class; flows: pairs of places in `blocks`, each from a lower to a
    higher one; levels: for each block the length of the longest path from an input.
    """

    title: str
    blocks: tuple[Block, ...]
    flows: tuple[tuple[int, int], ...]
    levels: tuple[int, ...]

    @property
    def parameters(self) -> int:
        """Return the number of parameters of all blocks."""
        return sum(block.parameters for block in self.blocks)

    @property
    def mult_adds(self) -> int:
        """Return multiply-adds of all blocks for one sample."""
        return sum(block.mult_adds for block in self.blocks)


def from_plain(plain: Mapping[str, Any]) -> Architecture:
    """Build an architecture from `dataclasses.asdict` of one, also after JSON."""
    blocks = (Block(**{**block, "shape": tuple(block["shape"])}) for block in plain["blocks"])
    flows = tuple((start, end) for start, end in plain["flows"])
    return Architecture(plain["title"], tuple(blocks), flows, tuple(plain["levels"]))


def as_text(model: Architecture) -> str:
    """Return a table of the blocks with their totals, for a terminal."""
    rows = [("block", "made of", "gives", "parameters", "multiply-adds")]
    rows += [
        (
            block.name,
            block.kind,
            shown(block.shape),
            f"{block.parameters:,}",
            f"{block.mult_adds:,}",
        )
        for block in model.blocks
    ]
    rows.append((model.title, "", "", f"{model.parameters:,}", f"{model.mult_adds:,}"))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        [cell.ljust(w) for cell, w in zip(row[:3], widths[:3], strict=True)]
        + [cell.rjust(w) for cell, w in zip(row[3:], widths[3:], strict=True)]
        for row in rows
    ]
    return "\n".join("  ".join(line).rstrip() for line in lines) + "\n"


def shown(shape: Shape) -> str:
    """Return a shape as text, such as `64 × 8 × 8`."""
    return " × ".join(map(str, shape))


# drawn as one block: those of torchvision's networks, then of timm's
_RESIDUAL = (
    "BasicBlock", "Bottleneck", "CNBlock", "EncoderBlock", "MBConv", "FusedMBConv",
    "Block", "ConvNeXtBlock", "InvertedResidual", "DepthwiseSeparableConv", "EdgeResidual",
    "SwinTransformerBlock",
)  # fmt: skip
_BEGIN = ("Conv2d", "ConvTranspose2d", "Linear")  # each begins a block of plain layers
# functions that are left out of the drawing
_SILENT = ("detach", "float", "flatten", "getitem", "add", "sub", "rsub", "mul")
_BATCH = 2  # BatchNorm in training mode refuses a single sample


@dataclass
class _Part:
    """Collects a block that is being made. leaves: paths of its modules that have no children;
    owners: of others, which compute something themselves or have parameters of their own."""

    name: str
    shape: Shape
    leaves: list[str] = field(default_factory=list)
    owners: list[str] = field(default_factory=list)


def architecture(kind: type[Trainable], config: Any, data: DataInfo) -> Architecture:
    """Describe the model that a trainable builds for its configuration and data, in training."""
    with torch.device("meta"):
        trainable = kind(config, data)
    trainable.set_training(True)
    own = getattr(config, "crop", None) or getattr(config, "view_size", None)
    side = own or data.size  # px of the images it trains on
    return trace(trainable.model, [(data.channels, side, side)] * kind.INPUTS)


def trace(model: nn.Module, shapes: Sequence[Shape]) -> Architecture:
    """Run a model once and describe what it did.

    model: on the meta device, in training or evaluation mode; shapes: of one sample per input.
    """
    from torchview import draw_graph  # seconds to load, used here alone

    inputs = [torch.empty(_BATCH, *shape, device="meta") for shape in shapes]
    counter = FlopCounterMode(display=False)
    with counter:
        model(*inputs)
    mode = "train" if model.training else "eval"
    graph = draw_graph(model, input_data=inputs, device="meta", depth=100, mode=mode)
    parts, flows = _Contraction(model, [(pair[0], pair[1]) for pair in graph.edge_list]).result()
    counts = counter.get_flop_counts()
    whole = {name.partition(".")[2]: sum(ops.values()) for name, ops in counts.items()}
    modules = dict(model.named_modules())
    flops = {
        path: whole[path] - _inside(path, modules[path], whole) if path in whole else 0
        for path in modules
    }  # of a module without its parts
    _give_owners(parts, modules, _homes(model), flops)
    blocks = [_block(part, modules, flops) for part in parts]
    return _in_order(type(model).__name__, blocks, flows)


def _inside(path: str, module: nn.Module, whole: Mapping[str, int]) -> int:
    """Return the operations of the parts of a module. whole: of modules with all of their parts."""
    prefix = f"{path}." if path else ""
    inner = ((prefix + name, part) for name, part in module.named_children())
    # one that is not called itself, as the encoder of a segmentation, has parts that are
    return sum(whole[k] if k in whole else _inside(k, part, whole) for k, part in inner)


def _give_owners(
    parts: Sequence[_Part],
    modules: Mapping[str, nn.Module],
    homes: Mapping[str, str],
    flops: Mapping[str, int],
) -> None:
    """Give each block what is no layer on the way and still counts: tokens and scales of modules
    with parts, attention, layers whose weights alone are used. flops: of modules without parts."""
    drawn = {part.name: part for part in parts}
    done = {path for part in parts for path in part.leaves}
    for path, module in modules.items():
        counts = any(True for _ in module.parameters(recurse=False)) or flops[path] > 0
        if path in done or not counts:
            continue
        prefix = f"{path}." if path else ""
        below = [homes[leaf] for leaf in homes if leaf == path or leaf.startswith(prefix)]
        if home := next((name for name in below if name in drawn), None):
            drawn[home].owners.append(path)


class _Contraction:
    """Groups layers into blocks.

    edges: pairs of torchview's nodes, which stand for modules, functions, inputs and outputs.
    """

    def __init__(self, model: nn.Module, edges: Sequence[tuple[Any, Any]]) -> None:
        self._paths = {id(module): path for path, module in model.named_modules()}
        self._homes = _homes(model)
        self._edges = edges
        self._known: dict[int, str] = {}
        self._before: dict[int, list[Any]] = {}
        self._after: dict[int, list[Any]] = {}
        for start, end in edges:
            self._after.setdefault(id(start), []).append(end)
            self._before.setdefault(id(end), []).append(start)

    def result(self) -> tuple[list[_Part], list[tuple[int, int]]]:
        """Return the blocks, and the flows as pairs of their places."""
        parts: dict[str, _Part] = {}
        for node in (node for edge in self._edges for node in edge):
            part = parts.setdefault(self._home(node), _Part(_title(node), ()))
            part.shape = _output_shape(node)
            path = self._path(node)
            if path is not None:
                part.name = self._homes[path]
                part.leaves += [path] if path not in part.leaves else []
        flows = dict.fromkeys((self._home(start), self._home(end)) for start, end in self._edges)
        left, taken = without_cycles(list(flows), lambda name: len(parts[name].leaves))
        for name, kept in taken.items():
            parts[kept].leaves += parts.pop(name).leaves
        silent = [name for name in parts if parts[name].name in _SILENT]
        return _numbered(parts, bridged(left, silent))

    def _home(self, node: Any) -> str:
        """Return the block of a node."""
        if id(node) not in self._known:
            self._known[id(node)] = self._found(node)
        return self._known[id(node)]

    def _found(self, node: Any) -> str:
        """Find the block of a node. A function between two layers of a block belongs to it."""
        path = self._path(node)
        if path is not None:
            return self._homes[path]
        sides = (self._before.get(id(node), []), self._after.get(id(node), []))
        before, after = ({self._homes.get(self._path(n) or "") for n in side} for side in sides)
        inside = [home for home in before & after if home is not None]
        if inside:
            return min(inside)
        if _title(node) == "input":  # torchview has several nodes for one input
            return "input"
        # the same function of the same inputs is drawn once
        origin = sorted(map(self._home, self._before.get(id(node), [])))
        return f"{node.name} of {origin}"

    def _path(self, node: Any) -> str | None:
        """Return the path of a module's node; None for other nodes."""
        path = self._paths.get(getattr(node, "compute_unit_id", 0))
        return path if path in self._homes else None


def _homes(model: nn.Module) -> dict[str, str]:
    """Return path of every layer → name of its block.

    A block is a stack of residual blocks, a container of one weighted layer, or a weighted layer
    with the plain layers after it.
    """
    homes: dict[str, str] = {}

    def visit(module: nn.Module, path: str) -> None:
        current = ""
        for name, child in module.named_children():
            inner = f"{path}.{name}" if path else name
            if any(child.children()):
                current = ""
                if _is_one_block(child):
                    leaves = [p for p, m in child.named_modules() if not any(m.children())]
                    homes.update({f"{inner}.{leaf}": inner for leaf in leaves})
                else:
                    visit(child, inner)
            else:
                current = inner if not current or type(child).__name__ in _BEGIN else current
                homes[inner] = current

    visit(model, "")
    return homes


def _is_one_block(module: nn.Module) -> bool:
    children = list(module.children())
    kinds = [type(child).__name__ for child in children]
    if type(module).__name__ in _RESIDUAL or all(kind in _RESIDUAL for kind in kinds):
        return True
    plain = not any(any(child.children()) for child in children)
    return plain and sum(kind in _BEGIN for kind in kinds) == 1


def _title(node: Any) -> str:
    """Return the name of a function; `input` or `output` for a tensor."""
    name = str(node.name)
    return {"auxiliary-tensor": "input", "input-tensor": "input", "output-tensor": "output"}.get(
        name, name.strip("_")
    )


def _output_shape(node: Any) -> Shape:
    shapes = getattr(node, "output_shape", None) or [node.tensor_shape]
    return tuple(shapes[0][1:])


def _numbered(
    parts: Mapping[str, _Part], flows: Sequence[tuple[str, str]]
) -> tuple[list[_Part], list[tuple[int, int]]]:
    used = {name for flow in flows for name in flow}
    places = {name: place for place, name in enumerate(n for n in parts if n in used)}
    return [parts[name] for name in places], [(places[start], places[end]) for start, end in flows]


def _in_order(
    title: str, blocks: Sequence[Block], flows: Sequence[tuple[int, int]]
) -> Architecture:
    levels = [0] * len(blocks)
    before = {
        place: {start for start, end in flows if end == place} for place in range(len(blocks))
    }
    for place in graphlib.TopologicalSorter(before).static_order():
        levels[place] = max((levels[start] + 1 for start in before[place]), default=0)
    order = sorted(range(len(blocks)), key=lambda place: levels[place])
    places = {old: new for new, old in enumerate(order)}
    return Architecture(
        title,
        tuple(blocks[old] for old in order),
        tuple(sorted((places[start], places[end]) for start, end in flows)),
        tuple(levels[old] for old in order),
    )


def _block(part: _Part, modules: Mapping[str, nn.Module], flops: Mapping[str, int]) -> Block:
    leaves = [modules[path] for path in part.leaves]
    owners = [modules[path] for path in part.owners]
    weights = [weight for owner in [*leaves, *owners] for weight in owner.parameters(recurse=False)]
    return Block(
        name=part.name,
        kind=_kind(part.name, modules, leaves),
        shape=part.shape,
        parameters=sum(weight.numel() for weight in weights),
        trained=sum(weight.numel() for weight in weights if weight.requires_grad),
        mult_adds=sum(flops[path] for path in [*part.leaves, *part.owners]) // (2 * _BATCH),
    )


def _kind(name: str, modules: Mapping[str, nn.Module], leaves: Sequence[nn.Module]) -> str:
    module = modules.get(name)
    inside = [type(child).__name__ for child in module.children()] if module else []
    if module is not None and type(module).__name__ in _RESIDUAL:
        return type(module).__name__
    if inside and all(kind in _RESIDUAL for kind in inside):
        return f"{len(inside)} × {inside[0]}"
    return ", ".join(_layer(leaf) for leaf in leaves if not isinstance(leaf, nn.Identity))


def _layer(module: nn.Module) -> str:
    name = type(module).__name__
    if not isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        return name
    extra = f" stride {module.stride[0]}" if module.stride[0] != 1 else ""
    extra += f" dilation {module.dilation[0]}" if module.dilation[0] != 1 else ""
    return f"{name} {module.kernel_size[0]}×{module.kernel_size[1]}{extra}"
