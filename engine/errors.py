"""Flowtrail's own errors: the class says whose fault it is. No other room defines a base of its own."""


class FlowtrailError(Exception):
    """A defect, or something nobody foresaw. `exit_code` is what the command line ends with."""

    exit_code = 70


class InputError(FlowtrailError):
    """The caller's input: says what was expected and what was found, with the place."""

    exit_code = 2


class AwayError(FlowtrailError):
    """A server that is needed does not answer."""

    exit_code = 3
