"""Errors as a client of OpenAI's protocol expects them: a status, and `{"error": {message, type, param, code}}`."""

from __future__ import annotations

import math
from typing import Any

from longreach.errors import (
    DiskFullError,
    DocumentError,
    EndedError,
    InputError,
    LibraryBusyError,
    LibraryError,
    LongreachError,
    NetworkError,
    PromptTooLongError,
    UnsupportedError,
)


class Refusal(LongreachError):
    """A request that gets an error for its answer. `wait` is told as Retry-After, in seconds."""

    def __init__(
        self, status: int, message: str, *, code: str = "", param: str | None = None, wait: float | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.param = param
        self.wait = wait

    def again(self) -> Refusal:
        """The same for another request: an exception is raised once."""
        return Refusal(self.status, str(self), code=self.code, param=self.param, wait=self.wait)

    @property
    def body(self) -> dict[str, Any]:
        about = {"message": str(self), "type": _kind(self.status), "param": self.param, "code": self.code or None}
        return {"error": about}

    @property
    def headers(self) -> dict[str, str]:
        found = {} if self.wait is None else {"Retry-After": str(max(1, math.ceil(self.wait)))}
        if self.status == 401:
            found["WWW-Authenticate"] = "Bearer"
        return found


def not_found(what: str) -> Refusal:
    """Of something that is not there, or that the caller may not know of."""
    return Refusal(404, f"there is no {what}", code="not_found")


def bad(message: str, param: str | None = None, code: str = "invalid_value") -> Refusal:
    """Of a request that is at fault."""
    return Refusal(400, message, param=param, code=code)


def refusal_for(error: Exception) -> Refusal:
    """The answer to a request in which `error` was raised. What is not raised on purpose is not told."""
    match error:
        case Refusal():
            return error
        case PromptTooLongError():
            return Refusal(400, str(error), code="context_length_exceeded", param="messages")
        case EndedError():
            return Refusal(504, str(error), code="timeout")
        case InputError():
            return Refusal(400, str(error), code="invalid_value")
        case UnsupportedError():
            return Refusal(400, str(error), code="unsupported")
        case DocumentError():
            return Refusal(422, str(error), code="unreadable_document")
        case LibraryBusyError():
            return Refusal(503, "the library is being written to by another process: try again", code="busy", wait=5)
        case DiskFullError():
            return Refusal(507, "there is no room left on the server's disk", code="disk_full")
        case LibraryError():
            return Refusal(500, "the library cannot be used: the server's log says why", code="library_error")
        case NetworkError():
            return Refusal(502, "the server behind this one does not answer", code="upstream")
        case LongreachError():
            return Refusal(500, str(error), code="model_error")
    return Refusal(500, "something went wrong here: the server's log says what", code="internal_error")


def _kind(status: int) -> str:
    kinds = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}
    return kinds.get(status, "invalid_request_error" if status < 500 else "server_error")
