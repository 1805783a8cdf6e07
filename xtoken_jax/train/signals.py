"""SIGINT and SIGTERM as a wish to stop after the step in hand, of all processes at the same one."""

import signal
from collections.abc import Callable
from types import FrameType

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

# The signals that are heard; processes tell each other a signal's place here, and 0 for none.
_HEARD = (None, signal.SIGINT, signal.SIGTERM)


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

    def ask(self) -> Callable[[], str | None]:
        """Ask all processes; what is returned gives the name of a signal that one of them got.

        With one process that is its last one until then. With several it is one from before this
        call, the same for all; the answer waits for what the devices were given before.
        """
        if jax.process_count() == 1:
            return lambda: self.requested
        names = [heard and heard.name for heard in _HEARD]
        mesh = Mesh(np.array(jax.devices()), "device")
        own = np.full(jax.local_device_count(), names.index(self.requested), np.int32)
        sharding = NamedSharding(mesh, PartitionSpec("device"))
        answer = jnp.max(jax.make_array_from_process_local_data(sharding, own))
        return lambda: names[int(answer)]
