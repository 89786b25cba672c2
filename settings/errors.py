"""How a command can fail, with the exit code of each: errors that a user can fix, a signal, and bugs of our own.

The exit codes are those of sysexits.h where one fits. A message is one paragraph. It tells what is wrong, where, with
which value, and how to fix it.
"""

BUG_EXIT_CODE = 70
"""The exit code after any other exception, which is a bug of this project (EX_SOFTWARE)."""


class UserError(Exception):
    """An error that the user can fix. Commands print the message without a traceback, and exit."""

    exit_code = 1


class DataError(UserError):
    """The ratings cannot be used (EX_DATAERR)."""

    exit_code = 65


class UnavailableError(UserError):
    """A service cannot be reached, or it failed (EX_UNAVAILABLE)."""

    exit_code = 69


class StorageError(UserError):
    """A file or folder cannot be read or written (EX_IOERR)."""

    exit_code = 74


class NoRoomError(UserError):
    """A quota or the capacity of the region is used up. It may work later (EX_TEMPFAIL)."""

    exit_code = 75


class LostWorkerError(UserError):
    """Another worker of the job no longer answers. The same command resumes the run (EX_TEMPFAIL)."""

    exit_code = 75


class StalledError(UserError):
    """The run made no progress for too long. The same command resumes it (EX_TEMPFAIL)."""

    exit_code = 75


class NotPermittedError(UserError):
    """The credentials are missing, refused or insufficient (EX_NOPERM)."""

    exit_code = 77


class ConfigError(UserError):
    """A flag or a config field has a value that cannot be used (EX_CONFIG)."""

    exit_code = 78


class DivergedError(UserError):
    """Training produced values that are not finite."""


class Stopped(BaseException):
    """A signal ended the run or the command.

    Not an Exception, as KeyboardInterrupt is none: what handles errors, here and in libraries, must not catch it.
    """

    def __init__(self, message: str, *, exit_code: int):
        """`exit_code` is 128 + the number of the signal, as in a shell."""
        super().__init__(message)
        self.exit_code = exit_code
