"""A process id for a simulated node: whoever asks whether the node's process lives gets the truth.

The tap names the process that writes it, and the collector tells a hang from a crash by it. All nodes of the fabric
share one process, so each has a child that does nothing: it ends when the node is killed, or the fabric itself.
"""

from __future__ import annotations

import struct
import subprocess
from collections.abc import Iterable
from pathlib import Path

from contract.records import TAP_AT_PID


class Identity:
    """A living child. OSError when it cannot be made."""

    def __init__(self) -> None:
        # It reads a pipe that only this process can write to: the end of this process, however it ends, is its own.
        self._child = subprocess.Popen(
            ["cat"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    @property
    def pid(self) -> int:
        return self._child.pid

    def end(self) -> None:
        """Kill it; at once, and once for all."""
        self._child.kill()
        self._child.wait()
        if self._child.stdin is not None:
            self._child.stdin.close()


def publish(made: Iterable[Path], directory: Path, pid: int) -> list[Path]:
    """Say in fresh taps who writes them, then move them to where the collector looks; where they are now."""
    out = []
    for path in made:
        with path.open("r+b") as file:
            file.seek(TAP_AT_PID)
            file.write(struct.pack("<I", pid))
        out.append(path.rename(directory / path.name))
    return out
