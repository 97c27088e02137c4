"""The fleet document on disk: read again when it changes; a bad one is refused and the old one kept."""

from __future__ import annotations

from pathlib import Path

from contract.documents import parse
from contract.fleet import Fleet
from service.settings import read_text

_Stamp = tuple[int, int, int]


class FleetFile:
    """Watches one path."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stamp: _Stamp | None = None

    def read(self) -> Fleet:
        """The document as it stands. DocumentError."""
        self._stamp = self._now()
        return parse(read_text(self.path), Fleet, str(self.path))

    def changed(self) -> bool:
        """Whether the file is another than at the last `read`. A file that is gone is not a change."""
        now = self._now()
        return now is not None and now != self._stamp

    def _now(self) -> _Stamp | None:
        try:
            status = self.path.stat()
        except OSError:
            return None
        return status.st_mtime_ns, status.st_size, status.st_ino
