"""BIRD's control socket: one command, its whole reply, errors as exceptions."""

from __future__ import annotations

import re
import socket
import time
from dataclasses import dataclass
from pathlib import Path

READY, RECONFIGURED, PROTOCOL_LIST = 1, 3, 1002
# Replies of 8000 and up are errors: of the run (8xxx), of the command's syntax (9xxx).
FIRST_ERROR = 8000
# A configuration may still be on its way into effect, or be put back in a row behind another one.
_ACCEPTED = (3, 4, 17, 18)
_LINE = re.compile(r"^(\d{4})([ -])(.*)$")


class BirdError(OSError):
    """BIRD does not answer, or refuses; the message is its own where there is one."""


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a reply. `code`: BIRD's four-digit number."""

    code: int
    text: str


class Reply:
    """Collects the bytes of one reply. `done` once its last line is there."""

    def __init__(self) -> None:
        self.lines: list[Line] = []
        self.done = False
        self._rest = b""

    def feed(self, data: bytes) -> None:
        """Take bytes as they come, in any pieces. BirdError on a line that is no reply."""
        *whole, self._rest = (self._rest + data).split(b"\n")
        for raw in whole:
            text = raw.decode(errors="replace")
            if self.done:
                raise BirdError(f"expected the reply to have ended, got {text!r}")
            match = _LINE.match(text)
            if match is not None:
                self.lines.append(Line(int(match[1]), match[3]))
                self.done = match[2] == " "
            elif text[:1] in (" ", "+") and self.lines:
                # " text" goes on under the code of the line before it; "+" is a message out of turn.
                if text[0] == " ":
                    self.lines.append(Line(self.lines[-1].code, text[1:]))
            else:
                raise BirdError(f"expected a reply of BIRD, got {text[:80]!r}")


class Birdc:
    """Speaks to one BIRD. Every call opens its own connection: a restarted daemon needs no care."""

    def __init__(self, path: Path, timeout_s: float = 2.0) -> None:
        self._path = path
        self._timeout_s = timeout_s

    def command(self, text: str) -> list[Line]:
        """The lines of the reply. BirdError when there is none in time, or it is an error."""
        end = time.monotonic() + self._timeout_s
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as s:
                s.settimeout(self._timeout_s)
                s.connect(str(self._path))
                self._receive(s, end)
                s.sendall(text.encode() + b"\n")
                lines = self._receive(s, end)
        except BirdError:
            raise
        except OSError as error:
            raise BirdError(f"{text!r}: {self._path}: {error.strerror or error}") from None
        wrong = [line.text for line in lines if line.code >= FIRST_ERROR]
        if wrong:
            raise BirdError(f"{text!r}: {'; '.join(wrong)}")
        return lines

    def configure(self) -> None:
        """Have BIRD read its configuration file again. BirdError when it refuses; then the former one holds on."""
        lines = self.command("configure")
        if not any(line.code in _ACCEPTED for line in lines):
            raise BirdError(f"'configure': {'; '.join(line.text for line in lines)}")

    def protocols(self) -> dict[str, str]:
        """By protocol: its own word on its state ("Established", "Connect", ...), or up/down where it has none."""
        out = {}
        for line in self.command("show protocols"):
            # Name Proto Table State Since Info...
            fields = line.text.split()
            if line.code == PROTOCOL_LIST and len(fields) >= 4:
                out[fields[0]] = fields[5] if len(fields) > 5 else fields[3]
        return out

    def _receive(self, s: socket.socket, end: float) -> list[Line]:
        reply = Reply()
        while not reply.done:
            left = end - time.monotonic()
            if left <= 0:
                raise BirdError(f"{self._path}: no whole reply within {self._timeout_s} s")
            s.settimeout(left)
            data = s.recv(65536)
            if not data:
                raise BirdError(f"{self._path}: BIRD closed the connection")
            reply.feed(data)
        return reply.lines
