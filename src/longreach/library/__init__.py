"""Documents, chunks and vectors on disk."""

from longreach.library.library import Library
from longreach.library.values import AddReport, LibraryStats, Progress, ProgressCallback

__all__ = ["AddReport", "Library", "LibraryStats", "Progress", "ProgressCallback"]
