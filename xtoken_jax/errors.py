"""What a user or a file can get wrong, as exceptions that the command line prints in one line."""


class XTokenError(ValueError):
    """A run that cannot go on: a wrong pairing, an unreadable file. Exit code 1."""


class UsageError(XTokenError):
    """The command line, a config, or a name in one of them is wrong. Exit code 2."""
