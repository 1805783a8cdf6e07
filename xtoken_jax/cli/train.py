"""`xtoken train CONFIG [--resume] [--FIELD VALUE ...]`."""

from xtoken_jax.cli.compilation import use_compilation_cache
from xtoken_jax.cli.experiment import read_experiment
from xtoken_jax.cli.output import OUT


def run_train(arguments: list[str]) -> int:
    """`xtoken train CONFIG [--resume] [--FIELD VALUE ...]`."""
    resume = "--resume" in arguments
    rest = [argument for argument in arguments if argument != "--resume"]
    usage = ["[--resume] ", "--resume: fail where there is no checkpoint to go on from"]
    config = read_experiment("train", rest, usage=usage)

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
