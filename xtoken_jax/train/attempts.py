"""Orbax calls that may fail, so that a failure is one line."""

import errno
import gc
import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar

import jax

_Result = TypeVar("_Result")
# What the system says of a disk that is full or cannot be written or read.
_SYSTEM_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EIO)
_LONGEST_REASON = 200


@dataclass(frozen=True)
class Failure:
    """Why an attempt came to nothing, in one line."""

    reason: str


@dataclass(frozen=True)
class Success(Generic[_Result]):
    """What an attempt gave."""

    value: _Result


def attempt(action: Callable[..., _Result], *arguments: Any) -> Success[_Result] | Failure:
    """Do something and say what became of it, with nothing on stderr.

    Orbax and TensorStore fail with exceptions of every type, after logging them with tracebacks
    from threads of their own.

    Raises:
        jax.errors.JaxRuntimeError: the devices failed, such as for lack of memory.
    """
    with _silence():
        try:
            return Success(action(*arguments))
        except jax.errors.JaxRuntimeError:
            raise
        except Exception as error:  # of any type: see above
            failure = Failure(_reason(error))
            del error
        gc.collect()  # coroutines that complain when they are collected do it here, unheard
    return failure


@contextmanager
def _silence() -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in ("absl", "asyncio")]
    hook, levels = sys.unraisablehook, [logger.level for logger in loggers]
    sys.unraisablehook = lambda unraisable: None
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        # TensorStore's threads may report to an event loop that a failure has closed, later on.
        is_filter = isinstance(hook, partial) and hook.func is _all_but_late_callbacks
        sys.unraisablehook = hook if is_filter else partial(_all_but_late_callbacks, hook)


def _all_but_late_callbacks(
    hook: Callable[[Any], Any], unraisable: "sys.UnraisableHookArgs"
) -> None:
    if "Event loop is closed" not in str(unraisable.exc_value):
        hook(unraisable)


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())
    for number in _SYSTEM_ERRORS:
        if os.strerror(number) in text:
            return os.strerror(number)
    return f"{type(error).__name__}: {text}"[:_LONGEST_REASON]
