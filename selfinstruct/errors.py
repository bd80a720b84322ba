"""The errors a user, a server or a machine can cause, each with its exit status.

Every one of them reaches the user as a single line; anything else that is raised is a bug.
"""

from __future__ import annotations


class SelfInstructError(Exception):
    """Base of all errors that are told in one line. `status` is the exit status of the command."""

    status = 1


class InputError(SelfInstructError):
    """Settings, usage or an input file are wrong: say what, where, and what to do."""

    status = 2


class StoppedEarly(SelfInstructError):
    """The run ended before its target (a limit, a signal, a replay that is used up); all is kept."""

    status = 3


class BackendError(SelfInstructError):
    """The backend refuses for good: key, model, address, or too many errors."""

    status = 4


class LockedError(SelfInstructError):
    """Another run holds the run directory."""

    status = 5


class RequestRefused(SelfInstructError):
    """The server will never take this one request (its length, its content); the run goes on."""

    def __init__(self, message: str, reason: str = "request_refused") -> None:
        super().__init__(message)
        self.reason = reason


class Transient(SelfInstructError):
    """The request failed in a way that may pass: busy server, lost connection, time-out.

    `retry_after` is the number of seconds the server asked to wait, or None. `kind` names the
    fault for the report (`http_429`, `connection`, `timeout`, ...).
    """

    status = 4

    def __init__(self, message: str, kind: str = "connection", retry_after: float | None = None) -> None:
        super().__init__(message)
        self.kind = kind
        self.retry_after = retry_after
