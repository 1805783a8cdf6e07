"""SIGINT and SIGTERM as a wish to stop after the step in hand."""

import signal
from types import FrameType


class StopRequest:
    """While entered, the first signal only sets `requested`; a second SIGINT interrupts."""

    def __init__(self) -> None:
        self.requested: str | None = None

    def __enter__(self) -> "StopRequest":
        """Take over both signals."""
        self._previous = {
            number: signal.signal(number, self._handle)
            for number in (signal.SIGINT, signal.SIGTERM)
        }
        return self

    def __exit__(self, *exception: object) -> None:
        """Give them back."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.requested = signal.Signals(number).name
