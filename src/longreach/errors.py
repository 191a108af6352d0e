"""What can go wrong, each with one sentence for people and an exit code for programs.

Exit codes: 2, the request itself was at fault; 1, anything else. `LongreachError` is the root: whoever
catches it has caught all that Longreach raises on purpose.
"""

from __future__ import annotations


class LongreachError(Exception):
    """Root of all errors raised on purpose; `str(error)` is one sentence fit to show."""

    exit_code = 1


class InputError(LongreachError):
    """The request is at fault: an empty question, a path that is not there, a value out of range."""

    exit_code = 2


class SpecError(InputError):
    """A spec string that names no known method, or gives a method an argument that it does not take."""


class DocumentError(LongreachError):
    """One document cannot be read: damaged, binary, unreadable, too large. Others are not affected."""


class LibraryError(LongreachError):
    """A library on disk cannot be used: not there, damaged, or not writable."""


class LibraryBusyError(LibraryError):
    """Another process is writing to this library."""


class LibraryVersionError(LibraryError):
    """The library was made by a newer version of Longreach, or with other settings than those asked for."""


class DiskFullError(LongreachError):
    """There is no room left on the disk; what was written before is whole."""


class ModelError(LongreachError):
    """A model cannot be loaded or run: no such model, a damaged file, an endpoint that answers with an error."""


class NetworkError(ModelError):
    """Something must be fetched, or a server asked, and the network does not answer."""


class PromptTooLongError(InputError):
    """The prompt does not fit into the model's context."""


class EndedError(LongreachError):
    """A request was ended before it was answered: it was cancelled, or its time was over."""


class UnsupportedError(LongreachError):
    """The chosen parts cannot do this together, such as exact extraction over a remote endpoint."""
