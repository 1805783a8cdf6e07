"""What a compiled program does, read from its text: cycles, bytes and collectives.

XLA's own cost analysis counts the body of a loop once, and a training step is loops over layers and
over blocks of tokens, so the text is walked here with the number of times that each loop runs.
"""

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from jax.extend import core

_HEADER = re.compile(r"^(ENTRY )?%([\w.-]+) \(.*\{$")
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%([\w.-]+) = ")
_ARRAY = re.compile(r"([a-z]+)(\d*)(\w*)\[([\d,]*)\](\{[^}]*\})?")
_NAME = re.compile(r"%([\w.-]+)")
_CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')
_LIMIT = re.compile(r"[su]32\[\].* constant\((\d+)\)")
_CHANNEL = re.compile(r"\bchannel_id=(\d+)")
_COLLECTIVES = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")
# Instructions that move nothing themselves.
_FREE = frozenset(
    {"parameter", "constant", "iota", "bitcast", "tuple", "get-tuple-element", "after-all"}
    | {"while", "conditional", "call"}
)


@dataclass(frozen=True)
class Cost:
    """Of one device, for one step.

    Attributes:
        cycles: The compiler's estimate for all but the collectives; 0 from a compiler without.
        num_bytes: Read from and written to memory outside the chip.
        collective_bytes: Results of collectives by kind.
        unknown_loops: Loops whose count is not in the program; they are counted as one pass.
    """

    cycles: float = 0.0
    num_bytes: float = 0.0
    collective_bytes: dict[str, float] = field(default_factory=dict)
    unknown_loops: int = 0

    def plus(self, other: "Cost", times: float = 1.0) -> "Cost":
        """This and `times` the other."""
        kinds = self.collective_bytes.keys() | other.collective_bytes.keys()
        ours, theirs = self.collective_bytes, other.collective_bytes
        return Cost(
            self.cycles + times * other.cycles,
            self.num_bytes + times * other.num_bytes,
            {kind: ours.get(kind, 0.0) + times * theirs.get(kind, 0.0) for kind in sorted(kinds)},
            self.unknown_loops + other.unknown_loops,
        )


@dataclass(frozen=True)
class _Instruction:
    name: str
    shape: str
    opcode: str
    operands: list[str]
    line: str

    def called(self, attribute: str) -> str | None:
        found = re.search(rf"\b{attribute}=%([\w.-]+)", self.line)
        return found[1] if found else None


_Computation = dict[str, _Instruction]


def program_cost(text: str) -> Cost:
    """The cost of the program whose optimised HLO text this is."""
    computations, entry = _parse(text)
    known: dict[str, Cost] = {}

    def cost(name: str) -> Cost:
        if name not in known:
            total = _collectives(name, computations)
            for instruction in computations[name].values():
                total = total.plus(_own_cost(instruction, computations, name))
                total = total.plus(_inner_cost(instruction, computations, cost))
            known[name] = total
        return known[name]

    return cost(entry)


def _inner_cost(
    instruction: _Instruction, computations: dict[str, _Computation], cost: Callable[[str], Cost]
) -> Cost:
    """Of the computations that an instruction runs one after the other."""
    if instruction.opcode == "while":
        condition, body = instruction.called("condition"), instruction.called("body")
        assert condition is not None
        assert body is not None
        limits = [
            int(found[1])
            for inner in computations[condition].values()
            if (found := _LIMIT.search(inner.line))
        ]
        if not limits:
            return Cost(unknown_loops=1).plus(cost(body))
        return Cost().plus(cost(body), times=max(limits))
    if instruction.opcode == "conditional":
        return max(map(cost, _branches(instruction)), key=lambda each: each.cycles)
    if instruction.opcode == "call" and (name := instruction.called("to_apply")):
        return cost(name)
    return Cost()


def _branches(instruction: _Instruction) -> list[str]:
    listed = re.search(r"branch_computations=\{([^}]*)\}", instruction.line)
    if listed:
        return _NAME.findall(listed[1])
    names = [instruction.called(f"{side}_computation") for side in ("true", "false")]
    return [name for name in names if name is not None]


def _own_cost(
    instruction: _Instruction, computations: dict[str, _Computation], inside: str
) -> Cost:
    """Of one instruction but for collectives."""
    if instruction.opcode in _FREE or instruction.opcode.endswith("-done"):
        return Cost()
    found = _CYCLES.search(instruction.line)
    cycles = float(found[1]) if found else 0.0
    return Cost(cycles, _moved(instruction, computations, inside))


def _collectives(name: str, computations: dict[str, _Computation]) -> Cost:
    """Results of the collectives of a computation, each once.

    The compiler splits one that it overlaps with computing into several fusions that each name it:
    they share its channel.
    """
    sizes: dict[tuple[str, str], float] = {}
    for instruction in computations[name].values():
        fused = instruction.called("calls") if instruction.opcode == "fusion" else None
        scope = computations[name if fused is None else fused]
        for each in (instruction,) if fused is None else scope.values():
            kind = next((kind for kind in _COLLECTIVES if each.opcode.startswith(kind)), None)
            if kind is not None and not each.opcode.endswith("-done"):
                channel = _CHANNEL.search(each.line)
                sizes[kind, channel[1] if channel else each.name] = _result_size(each, scope)
    return Cost(
        collective_bytes={
            kind: sum(size for (other, _), size in sizes.items() if other == kind)
            for kind in {kind for kind, _ in sizes}
        }
    )


def _result_size(instruction: _Instruction, scope: _Computation) -> float:
    size = _size(instruction.shape)
    if instruction.opcode.endswith("-start") and instruction.shape.startswith("("):
        # Its shape holds the operands too.
        size -= sum(_size(scope[name].shape) for name in instruction.operands if name in scope)
    return size


def _moved(instruction: _Instruction, computations: dict[str, _Computation], inside: str) -> float:
    """Bytes that an instruction reads and writes outside the chip."""
    scope = computations[inside]
    operands = [scope[name].shape for name in instruction.operands if name in scope]
    opcode, result = instruction.opcode, _outside(instruction.shape)
    if opcode in ("dynamic-slice", "gather", "slice"):
        return 2.0 * result
    if opcode in ("dynamic-update-slice", "scatter"):
        return 2.0 * sum(map(_outside, operands[1:]))
    called = instruction.called("calls")
    if opcode != "fusion" or called is None:
        return result + float(sum(map(_outside, operands)))
    return _moved_by_fusion(computations[called], operands, result)


def _moved_by_fusion(body: _Computation, operands: list[str], result: float) -> float:
    """Likewise of a fusion, which may read, or write, only a slice of a larger array."""
    total = 0.0
    for inner in body.values():
        if inner.opcode == "dynamic-update-slice":
            update = _size(body[inner.operands[1]].shape)
            result = min(result, 2.0 * update)
    for inner in body.values():
        if inner.opcode != "parameter":
            continue
        place = re.search(r"parameter\((\d+)\)", inner.line)
        assert place is not None
        whole = _outside(operands[int(place[1])])
        users = [user for user in body.values() if inner.name in user.operands]
        total += min(whole, sum(_read(user, inner.name, whole) for user in users))
    return total + result


def _read(user: _Instruction, name: str, whole: float) -> float:
    if user.operands[:1] == [name]:
        if user.opcode in ("dynamic-slice", "gather", "slice"):
            return float(_size(user.shape))
        if user.opcode == "dynamic-update-slice":
            return 0.0
    return whole


def _parse(text: str) -> tuple[dict[str, _Computation], str]:
    computations: dict[str, _Computation] = {}
    entry = ""
    current: _Computation = {}
    for line in text.splitlines():
        if header := _HEADER.match(line):
            current = computations.setdefault(header[2], {})
            if header[1]:
                entry = header[2]
        elif found := _INSTRUCTION.match(line):
            current[found[1]] = _instruction(found[1], line, line[found.end() :])
    return computations, entry


def _instruction(name: str, line: str, rest: str) -> _Instruction:
    end = _closing(rest) if rest.startswith("(") else rest.index(" ")
    shape, rest = rest[:end], rest[end:].lstrip()
    opcode, _, _ = rest.partition("(")
    arguments = rest[len(opcode) : len(opcode) + _closing(rest[len(opcode) :])]
    return _Instruction(name, shape, opcode, _NAME.findall(arguments), line)


def _closing(text: str) -> int:
    """One past the bracket that closes the one at the start."""
    depth = 0
    for place, letter in enumerate(text):
        depth += (letter == "(") - (letter == ")")
        if depth == 0:
            return place + 1
    return len(text)


def _arrays(shape: str) -> Iterator[tuple[float, bool]]:
    """Size of each array of a shape in bytes, and whether it lies outside the chip."""
    for letters, bits, _, dims, layout in _ARRAY.findall(shape):
        width = 1 if letters == "pred" else int(bits or 0) / 8
        size = math.prod(int(size) for size in dims.split(",") if size)
        yield width * size, "S(" not in layout


def _size(shape: str) -> float:
    return sum(size for size, _ in _arrays(shape))


def _outside(shape: str) -> float:
    return sum(size for size, is_outside in _arrays(shape) if is_outside)


def product_flops(jaxpr: Any) -> float:
    """Operations in the matrix products of a traced function, loops as often as they run."""
    total = 0.0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            total += _dot_flops(equation)
        inner = [product_flops(each) for each in _inner_jaxprs(equation)]
        if not inner:
            continue
        if equation.primitive.name == "cond":
            total += max(inner)
        else:
            times = equation.params["length"] if equation.primitive.name == "scan" else 1
            total += times * sum(inner)
    return total


def _dot_flops(equation: Any) -> float:
    (contracted, _), _ = equation.params["dimension_numbers"]
    left = equation.invars[0].aval.shape
    result = math.prod(equation.outvars[0].aval.shape)
    return 2.0 * result * math.prod(left[axis] for axis in contracted)


def _inner_jaxprs(equation: Any) -> Iterator[Any]:
    for value in equation.params.values():
        for each in value if isinstance(value, tuple | list) else (value,):
            if isinstance(each, core.ClosedJaxpr):
                yield each.jaxpr
            elif isinstance(each, core.Jaxpr):
                yield each
