"""`xtoken train CONFIG [--resume] [--distributed ...] [--FIELD VALUE ...]`."""

import os

from xtoken_jax.cli.compilation import use_compilation_cache
from xtoken_jax.cli.experiment import read_experiment, take_number, take_text
from xtoken_jax.cli.output import OUT

_USAGE = (
    "[--resume] [--distributed] ",
    "--resume: fail where there is no checkpoint to go on from",
    "--distributed: be one of several processes, one a host, as Cloud TPU, Slurm, Open MPI or",
    "  Kubernetes say, or JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID, or",
    "  --coordinator HOST:PORT --num-processes N --process-id I, each of which implies it",
)


def run_train(arguments: list[str]) -> int:
    """`xtoken train CONFIG [--resume] [--distributed ...] [--FIELD VALUE ...]`."""
    arguments = list(arguments)
    place = {
        "coordinator_address": take_text(arguments, "--coordinator"),
        "num_processes": take_number(arguments, "--num-processes", least=1),
        "process_id": take_number(arguments, "--process-id", least=0),
    }
    is_given = any(value is not None for value in place.values())
    distributed = (
        is_given or {"--distributed"} & {*arguments} or "JAX_COORDINATOR_ADDRESS" in os.environ
    )
    resume = "--resume" in arguments
    rest = [argument for argument in arguments if argument not in ("--resume", "--distributed")]
    config = read_experiment("train", rest, usage=_USAGE)

    use_compilation_cache()
    from xtoken_jax.processes import is_first, join_processes
    from xtoken_jax.report import evaluation_table, plot_curves, read_evaluation
    from xtoken_jax.train.run import train

    if distributed:
        join_processes(**place)
    result = train(config, resume=resume)
    if not is_first():
        return 0
    if result.stopped_by:
        OUT.print(
            f"{result.stopped_by}: saved at step {result.step} of {config.optim.steps}; "
            "the same command goes on from there"
        )
        return 0
    curves = plot_curves(result.run_dir)
    if results := read_evaluation(result.run_dir):
        OUT.print(evaluation_table(results))
    OUT.print(f"student: {result.run_dir / 'student'}\ncurves:  {curves}")
    return 0
