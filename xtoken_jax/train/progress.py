"""A progress bar on a terminal, a line now and then elsewhere."""

import time

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

from xtoken_jax.processes import is_first

_SECONDS_BETWEEN_LINES = 15.0


class Progress:
    """Shows the step, the loss, the speed and the time left, on stderr."""

    def __init__(self, *, total: int, step: int) -> None:
        self._console = Console(stderr=True, quiet=not is_first())
        self._bar = RichProgress(
            TextColumn("training"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[summary]}"),
            TimeRemainingColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._task = self._bar.add_task("", total=total, completed=step, summary="compiling")
        self._total = total
        self._last_line = 0.0

    def __enter__(self) -> "Progress":
        """Show the bar."""
        self._bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        """Leave the bar as it is."""
        self._bar.stop()

    def update(self, step: int, *, loss: float, tokens_per_second: float) -> None:
        """Say how far the run is."""
        summary = f"cross-entropy {loss:.3f} nats, {tokens_per_second:,.0f} tokens/s"
        self._bar.update(self._task, completed=step, summary=summary)
        due = time.monotonic() - self._last_line > _SECONDS_BETWEEN_LINES
        if self._bar.disable and (due or step == self._total):
            self._console.print(f"step {step}/{self._total}: {summary}", highlight=False)
            self._last_line = time.monotonic()

    def say(self, line: str) -> None:
        """Print a line above the bar."""
        self._bar.console.print(line, highlight=False, soft_wrap=True, markup=False)
