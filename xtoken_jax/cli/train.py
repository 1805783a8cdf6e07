"""`xtoken train CONFIG [--resume] [--FIELD VALUE ...]`."""

from xtoken_jax.cli.compilation import use_compilation_cache
from xtoken_jax.cli.output import OUT
from xtoken_jax.cli.parsing import parse
from xtoken_jax.errors import UsageError


def run_train(arguments: list[str]) -> int:
    """`xtoken train CONFIG [--resume] [--FIELD VALUE ...]`."""
    from xtoken_jax.config import ExperimentConfig, check_config, load_config, to_dict

    resume = "--resume" in arguments
    rest = [argument for argument in arguments if argument != "--resume"]
    wants_help = not {"-h", "--help"}.isdisjoint(rest)
    if wants_help:
        print("usage: xtoken train CONFIG [--resume] [--FIELD VALUE ...]\n")
        print("--resume: fail where there is no checkpoint to go on from\n")
    if rest and not rest[0].startswith("-"):
        config = load_config(rest[0])
    elif wants_help:
        config = check_config(_EXAMPLE, name="example")
    else:
        raise UsageError("`xtoken train` needs a config file, such as configs/quickstart.yaml")
    prog = f"xtoken train {'CONFIG' if wants_help else rest[0]}"
    options = ["--help"] if wants_help else rest[1:]
    config = parse(ExperimentConfig, options, prog=prog, default=config)
    config = check_config(to_dict(config), name="command line")

    use_compilation_cache()
    from xtoken_jax.report import evaluation_table, plot_curves, read_evaluation
    from xtoken_jax.train.run import train

    result = train(config, resume=resume)
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


# Stands for the fields that have no default in `xtoken train --help`.
_EXAMPLE = {
    "run_dir": "RUN",
    "teacher": {"model": "TEACHER"},
    "student": {"model": "STUDENT"},
    "data": {"train": [{"kind": "text", "path": "GLOB"}]},
}
