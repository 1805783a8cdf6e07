"""Does cross-tokenizer distillation do what the paper says? The experiment of docs/results.md.

    python scripts/reproduce.py scratch [--budget full] [--seeds 3] [--only 'packed/*']
    python scripts/reproduce.py pretrained [--budget full] [--seeds 3] [--only '*/p_kl*']
    python scripts/reproduce.py table [--figure answers.png] [--curves curves.png]

`scratch` trains tiny pairs on sums, `pretrained` teaches bodies of SmolLM2-135M that read other
vocabularies. Each cell, one method in one setting with one seed, is a run of its own under
`--out`; what is finished is a line of `PART-BUDGET.jsonl` there and is not run again, and what was
stopped goes on, so both can be stopped at any time. `table` prints what there is as Markdown.
"""

import argparse
import fnmatch
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from reproduction import pretrained, scratch
from reproduction.cells import read_results, run_cells
from reproduction.table import by_source, draw_answers, draw_curves, draw_gains, markdown

from xtoken_jax.cli.compilation import use_compilation_cache

PARTS = {"scratch": scratch, "pretrained": pretrained}


def main() -> None:
    args = _arguments()
    if args.part == "table":
        _tell(args)
        return
    use_compilation_cache()
    name = f"{args.part}-{args.budget}"
    cells = PARTS[args.part].cells(args.out / name, args.budget, range(args.seeds))
    wanted = (
        cell for cell in cells if any(fnmatch.fnmatch(cell.name, pattern) for pattern in args.only)
    )
    run_cells(wanted, args.out / name, args.out / f"{name}.jsonl")


def _tell(args: argparse.Namespace) -> None:
    """Print the tables of all parts, and draw what is asked for."""
    parts = {path.stem: read_results(path) for path in sorted(args.out.glob("*.jsonl"))}
    for name, results in parts.items():
        print(f"## {name}\n\n{markdown(results)}")
        if args.curves is not None:
            draw_curves(args.out / name, args.curves.with_stem(f"{args.curves.stem}-{name}"))
        if args.figure is not None:
            figure = args.figure.with_stem(f"{args.figure.stem}-{name}")
            if name.startswith("scratch"):
                draw_answers(results, figure)
            elif pretrained.NEW_NUMBERS in by_source(results):  # not of `prose` alone
                draw_gains(results, pretrained.NEW_NUMBERS, figure)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("part", choices=(*PARTS, "table"))
    parser.add_argument("--budget", choices=("small", "full"), default="small")
    parser.add_argument("--seeds", type=int, default=3, help="0 up to this, a seed after the other")
    parser.add_argument(
        "--only", nargs="+", default=["*"], help="cells whose SETTING/METHOD match, as `*/ce`"
    )
    parser.add_argument("--out", type=Path, default=Path("runs/reproduce"))
    parser.add_argument(
        "--figure", type=Path, help="`table`: draw answers or gains, a file for each part"
    )
    parser.add_argument("--curves", type=Path, help="`table`: draw curves, a file for each part")
    return parser.parse_args()


if __name__ == "__main__":
    main()
