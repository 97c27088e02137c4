"""The eyes of the speaker: routes.json, the node's process, the heartbeats in its taps."""

from __future__ import annotations

import contextlib
import mmap
import os
import select
from pathlib import Path

from contract import tap
from gateway.speaker.liveness import Routes, RoutesError, Sight


class NodeWatch:
    """Looks at one node. Cheap enough for ten looks a second: files are read again only when they have changed."""

    def __init__(self, routes_file: Path) -> None:
        self._path = routes_file
        self._stamp: tuple[int, int, int] | None = None
        self._pidfd: int | None = None
        self._poll = select.poll()
        self._taps: list[memoryview | None] = []
        self.routes: Routes | None = None
        # Why routes.json cannot be used, for the status.
        self.problem: str | None = None

    @property
    def pidfd(self) -> int | None:
        """Readable once the node's process has ended; None when there is none."""
        return self._pidfd

    def look(self) -> Sight:
        """What is to be seen now."""
        self._read()
        if self.routes is None:
            return Sight(None)
        return Sight(self.routes, self._process_alive(), self._heartbeats())

    def close(self) -> None:
        """Let go of the process and the taps."""
        self._let_go()

    def _read(self) -> None:
        try:
            found = os.stat(self._path)
        except OSError:
            if self._stamp is not None:
                self._let_go()
            self._stamp, self.routes, self.problem = None, None, None
            return
        stamp = (found.st_ino, found.st_mtime_ns, found.st_size)
        if stamp == self._stamp:
            return
        try:
            fresh = Routes.parse(self._path.read_text())
        except (OSError, UnicodeDecodeError, RoutesError) as error:
            # Not what a node writes: whoever wrote it, nothing is known to be forwarded.
            self._stamp, self.routes, self.problem = stamp, None, str(error)
            self._let_go()
            return
        before = self.routes
        self._stamp, self.routes, self.problem = stamp, fresh, None
        if before is None or (before.boot_id, before.pid, before.taps) != (fresh.boot_id, fresh.pid, fresh.taps):
            self._let_go()
            self._hold(fresh)

    def _hold(self, routes: Routes) -> None:
        with contextlib.suppress(OSError):
            self._pidfd = os.pidfd_open(routes.pid)
            self._poll.register(self._pidfd, select.POLLIN)
        self._taps = [None] * len(routes.taps)

    def _let_go(self) -> None:
        if self._pidfd is not None:
            self._poll.unregister(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = None
        # The maps go with their last view.
        self._taps = []

    def _process_alive(self) -> bool:
        return self._pidfd is not None and not self._poll.poll(0)

    def _heartbeats(self) -> list[int | None]:
        assert self.routes is not None  # noqa: S101 - look() asks first
        out: list[int | None] = []
        for at, path in enumerate(self.routes.taps):
            opened = self._taps[at]
            if opened is None:
                opened = self._taps[at] = _map(path, self.routes.pid)
            if opened is None:
                out.append(None)
                continue
            state = tap.read_state(opened)
            out.append(None if state.closed or state.heartbeat_ns == 0 else state.heartbeat_ns)
        return out


def _map(path: str, pid: int) -> memoryview | None:
    """A view of a tap that this process writes; None when the file is no such thing (yet)."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        view = memoryview(mmap.mmap(fd, 0, prot=mmap.PROT_READ))
        return view if tap.read_header(view).pid == pid else None
    except (OSError, ValueError):
        return None
    finally:
        os.close(fd)
