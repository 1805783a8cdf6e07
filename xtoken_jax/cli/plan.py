"""`xtoken plan CONFIG --topology TOPOLOGY [--json] [--FIELD VALUE ...]`."""

import dataclasses
from typing import TYPE_CHECKING, Any

from xtoken_jax.cli.experiment import read_experiment, take_text
from xtoken_jax.cli.output import OUT, print_json
from xtoken_jax.errors import UsageError

if TYPE_CHECKING:
    from xtoken_jax.train.plan import Plan


def run_plan(arguments: list[str]) -> int:
    """Compile and print; 0 where the step fits or nothing is known of the memory, 1 where not."""
    arguments = list(arguments)
    topology = take_text(arguments, "--topology")
    as_json = "--json" in arguments
    arguments = [argument for argument in arguments if argument != "--json"]
    usage = [
        "--topology TOPOLOGY [--json] ",
        "--topology: chips along each side, v5e:4x4 or v5p:2x2x2; cpu for this process's devices",
        "--json: print JSON",
    ]
    config = read_experiment("plan", arguments, usage=usage)
    if topology is None:
        raise UsageError("`xtoken plan` needs `--topology`, such as v5e:4x4")
    # The machine's own accelerators are not needed, and may be at work.
    import jax

    jax.config.update("jax_platforms", "cpu")
    from xtoken_jax.train.plan import make_plan

    plan = make_plan(config, topology)
    if as_json:
        print_json(as_dict(plan, topology))
    else:
        OUT.print(plan_table(plan, arguments[0], topology))
    return 1 if plan.fits is False else 0


def as_dict(plan: "Plan", topology: str) -> dict[str, Any]:
    """All figures of a plan in bytes, operations and seconds, for one device."""
    seconds = plan.seconds()
    return {
        "topology": topology,
        "devices": plan.devices,
        "bytes": {
            "argument": plan.argument_bytes,
            "output": plan.output_bytes,
            "alias": plan.alias_bytes,
            "temporary": plan.temporary_bytes,
            "peak": plan.peak_bytes,
            "hbm": None if plan.chip is None else plan.chip.hbm_bytes,
        },
        "fits": plan.fits,
        "flops": plan.flops,
        "program": None if plan.cost is None else dataclasses.asdict(plan.cost),
        "seconds": seconds,
        "tokens_per_second": plan.step_tokens / seconds["step"] if "step" in seconds else None,
        "chip": None if plan.chip is None else dataclasses.asdict(plan.chip),
        "compile_seconds": plan.compile_seconds,
    }


def plan_table(plan: "Plan", path: str, topology: str) -> Any:
    """The same, to be read."""
    from rich.table import Table

    table = Table(title=f"{path} on {topology}, per device of {plan.devices}")
    table.add_column("what")
    table.add_column("amount", justify="right")
    for name, value in _memory_rows(plan) + _work_rows(plan) + _time_rows(plan):
        table.add_row(name, value)
    return table


def _memory_rows(plan: "Plan") -> list[tuple[str, str]]:
    rows = [
        ("state, teachers, tables, batch", _gigabytes(plan.argument_bytes)),
        ("new state", _gigabytes(plan.output_bytes)),
        ("  of it in the place of the old", _gigabytes(plan.alias_bytes)),
        ("temporary", _gigabytes(plan.temporary_bytes)),
        ("peak", _gigabytes(plan.peak_bytes)),
    ]
    if plan.chip is not None:
        verdict = "fits" if plan.fits else "DOES NOT FIT"
        rows.append(("memory", f"{_gigabytes(plan.chip.hbm_bytes)}: {verdict}"))
    return rows


def _work_rows(plan: "Plan") -> list[tuple[str, str]]:
    rows = [("matrix products", f"{plan.flops / 1e12:.4g} TFLOP")]
    if plan.cost is None:
        return [*rows, ("memory read and written", "not told by this jaxlib")]
    if plan.cost.unknown_loops:
        rows.append(("loops of unknown length, counted once", str(plan.cost.unknown_loops)))
    return [
        *rows,
        ("memory read and written", _gigabytes(plan.cost.num_bytes)),
        ("collectives", _gigabytes(sum(plan.cost.collective_bytes.values()))),
    ]


_TIMES = {
    "compiler": "time: compiler's cycles",
    "products": "time: matrix products at peak",
    "memory": "time: memory at full bandwidth",
    "collectives": "time: collectives at full bandwidth",
    "step": "step: longest of the first three, and collectives",
}


def _time_rows(plan: "Plan") -> list[tuple[str, str]]:
    seconds = plan.seconds()
    rows = [(_TIMES[name], f"{value:.3f} s") for name, value in seconds.items()]
    if "step" in seconds:
        rows.append(("tokens/s, all devices", f"{plan.step_tokens / seconds['step']:,.0f}"))
    return rows


def _gigabytes(amount: float) -> str:
    return f"{amount / 1e9:.2f} GB"
