"""Texts that a user gives on the command line."""

from pathlib import Path

from xtoken_jax.errors import UsageError, XTokenError


def read_utf8(path: Path, *, option: str) -> str:
    """The text of a file, line ends as they are.

    Raises:
        UsageError: there is no such file.
        XTokenError: it is not UTF-8.
    """
    try:
        return path.read_bytes().decode()
    except FileNotFoundError as error:
        raise UsageError(f"`{option}` {path} does not exist") from error
    except UnicodeDecodeError as error:
        raise XTokenError(f"{path} must be UTF-8, got a bad byte at {error.start}") from error


def checked_utf8(text: str, *, option: str) -> str:
    """A text from the shell, which need not be UTF-8.

    Raises:
        UsageError: it is not.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UsageError(f"`{option}` must be UTF-8, got a bad byte at {error.start}") from error
    return text
