"""Why the embedded stack could not do what was asked: the class says whose fault it is.

`exit_code` is what the command line ends with: 2 when the caller can change the input, 3 when a server is
away or cannot be had. stack/ imports no other room, so it cannot use the engine's errors.
"""


class StackError(Exception):
    """A server does not answer, ended, or cannot be had on this machine."""

    exit_code = 3


class Refused(StackError):
    """The request cannot be met as it was made: a taken port, a data directory in use."""

    exit_code = 2
