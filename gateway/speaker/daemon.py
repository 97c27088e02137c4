"""The BIRD process under the speaker: it never outlives the speaker, however that ends."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess

from gateway.speaker.settings import SpeakerSettings

_PR_SET_PDEATHSIG = 1


def _die_with_parent(parent: int) -> None:
    # Between fork and exec. SIGKILL: the kernel then closes the BGP connection at once, and the routes are gone.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


class Daemon:
    """Starts, watches and ends one BIRD."""

    def __init__(self, settings: SpeakerSettings) -> None:
        self._settings = settings
        self._child: subprocess.Popen[bytes] | None = None
        self.pidfd: int | None = None

    def start(self) -> None:
        """Start BIRD on the configuration file as it stands. OSError when the program cannot be run."""
        s = self._settings
        s.control_socket.unlink(missing_ok=True)
        parent = os.getpid()
        command = [s.bird, "-f", "-c", str(s.bird_conf), "-s", str(s.control_socket), "-P", str(s.bird_pid)]
        # This process has one thread, so code between fork and exec is safe.
        self._child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            preexec_fn=lambda: _die_with_parent(parent),
        )
        self.pidfd = os.pidfd_open(self._child.pid)

    @property
    def running(self) -> bool:
        """Whether it runs; takes note of its end."""
        if self._child is not None and self._child.poll() is not None:
            self._forget()
        return self._child is not None

    def stop(self, patience_s: float = 0.7) -> None:
        """End it: in good order (the routers are told), and by force when that takes too long."""
        if self._child is None:
            return
        with contextlib.suppress(ProcessLookupError):
            self._child.terminate()
        try:
            self._child.wait(patience_s)
        except subprocess.TimeoutExpired:
            self.kill()
        self._forget()

    def kill(self) -> None:
        """End it by force."""
        if self._child is not None:
            self._child.kill()
            self._child.wait()
            self._forget()

    def _forget(self) -> None:
        if self.pidfd is not None:
            os.close(self.pidfd)
        self.pidfd = None
        self._child = None
