"""Directories and names that outlive a power cut."""

from __future__ import annotations

import os
from pathlib import Path


def make_directory(path: Path, mode: int = 0o700) -> None:
    """Make a directory, parents too (for all to pass), each durable in its parent; what is there stays. OSError."""
    if path.is_dir():
        return
    make_directory(path.parent, 0o755)
    path.mkdir(mode=mode, exist_ok=True)
    sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable. OSError."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
