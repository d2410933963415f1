"""Errors that teach: what was wrong, where, and what to do.

A `UserError` ends the command line with exit code 2 and no traceback; anything else is ours, and exits 1 with one.
"""

import difflib
from collections.abc import Iterable

__all__ = ["ConfigError", "DataError", "MissingFile", "UserError", "nearest"]


class UserError(ValueError):
    """Something the user can mend: the message says what and how."""


class ConfigError(UserError):
    """A key, choice or value of the configuration that cannot be."""


class DataError(UserError):
    """A file, table or split that cannot be used; the message names file, row and column."""


class MissingFile(UserError, FileNotFoundError):
    """A file that was asked for and is not there."""


def nearest(name: str, valid: Iterable[str]) -> str:
    """A hint after an unknown name: its nearest valid neighbours, or all valid names when there are few.

    >>> nearest("epoch", ["epochs", "batch_size"])
    " Did you mean 'epochs'?"
    >>> nearest("zzz", ["adam", "sgd"])
    ' Valid: adam, sgd.'
    """
    choices = sorted(set(valid))
    close = difflib.get_close_matches(name, choices, n=3, cutoff=0.6)
    if close:
        return " Did you mean " + " or ".join(repr(c) for c in close) + "?"
    return f" Valid: {', '.join(choices)}." if 0 < len(choices) <= 24 else ""
