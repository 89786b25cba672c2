"""What can go wrong that a user can mend: one exception a kind, each with its exit code.

The codes are those of sysexits.h where it has a fitting one. A message is one paragraph: what is wrong,
where, with which value, and the way out.
"""


class UserError(Exception):
    """Something the user can mend. Entry points print the message, without a traceback, and exit."""

    exit_code = 1


class DataError(UserError):
    """The ratings cannot be used (EX_DATAERR)."""

    exit_code = 65


class UnavailableError(UserError):
    """A service cannot be reached, or failed (EX_UNAVAILABLE)."""

    exit_code = 69


class StorageError(UserError):
    """A file or folder cannot be read or written (EX_IOERR)."""

    exit_code = 74


class NoRoomError(UserError):
    """A quota or the region's capacity is used up; later there may be room (EX_TEMPFAIL)."""

    exit_code = 75


class NotPermittedError(UserError):
    """The credentials are missing, refused, or not enough (EX_NOPERM)."""

    exit_code = 77


class ConfigError(UserError):
    """A flag or a config field has a value that cannot be used (EX_CONFIG)."""

    exit_code = 78


class DivergedError(UserError):
    """Training produced numbers that are not finite."""


class Stopped(UserError):
    """A signal asked the run to end, and it saved."""

    def __init__(self, message: str, *, exit_code: int):
        """`exit_code` is 128 + the signal's number, as a shell reports it."""
        super().__init__(message)
        self.exit_code = exit_code
