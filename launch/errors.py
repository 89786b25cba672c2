"""What can go wrong with a launch that a user can mend, with the exit codes of sysexits.h.

A message is one paragraph: what is wrong, where, with which value, and the way out.
"""


class UserError(Exception):
    """Something the user can mend. Entry points print the message, without a traceback, and exit."""

    exit_code = 1


class ConfigError(UserError):
    """A flag, or what a cluster is described by, has a value that cannot be used (EX_CONFIG)."""

    exit_code = 78
