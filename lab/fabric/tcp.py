"""One TCP connection as a state machine: segments, time and the application's wishes in; segments and a deadline out.

Small but honest: handshake both ways, in-order delivery, retransmission with doubling time-outs, orderly close, resets
as in RFC 9293. Left out: options, window scaling and probes of a shut window (none shuts here), congestion control,
selective acknowledgement, simultaneous open.
"""

from __future__ import annotations

from enum import Enum
from typing import Protocol

from lab.fabric.wire import ACK, FIN, PSH, RST, SYN, Segment

MSS = 1400
RTO_HANDSHAKE_NS, RTO_DATA_NS, RTO_LIMIT_NS = 1_000_000_000, 200_000_000, 8_000_000_000
# As the lab's kernels are set: a SYN 6 times more, a SYN-ACK twice more; data is given up sooner than Linux does.
SYN_RETRIES, SYN_ACK_RETRIES, DATA_RETRIES = 6, 2, 8
# Twice the longest a segment can live here, where links hold one for less than a millisecond.
TIME_WAIT_NS = 1_000_000_000
FIN_WAIT_NS = 60_000_000_000
BUFFER_LIMIT = 1 << 20

End = tuple[bytes, int]
_MODULUS = 1 << 32
_HALF = 1 << 31


class State(Enum):
    SYN_SENT = "syn_sent"
    SYN_RECEIVED = "syn_received"
    OPEN = "open"
    TIME_WAIT = "time_wait"
    CLOSED = "closed"


class App(Protocol):
    """Who uses a connection. `why` of `ended`: closed, reset, refused or timeout."""

    def opened(self, connection: Connection) -> None: ...

    def received(self, connection: Connection, data: bytes) -> None: ...

    def peer_closed(self, connection: Connection) -> None: ...

    def ended(self, connection: Connection, why: str) -> None: ...


def after(one: int, other: int) -> bool:
    """Whether sequence number `one` is later than `other`, modulo 2**32."""
    return 0 < (one - other) % _MODULUS < _HALF


class Connection:
    """Either side of a connection. The owner sends what `take` returns and calls `timeout` at `deadline`."""

    def __init__(self, app: App, local: End, remote: End, iss: int) -> None:
        self.local = local
        self.remote = remote
        self.state = State.CLOSED
        self.deadline: int | None = None
        self.wake: int | None = None  # the owner's: when it has planned to look at the deadline
        self.retransmissions = 0
        self.heard_ns = 0  # when the peer's last segment came
        self._app = app
        self._iss = iss
        self._una = iss  # oldest byte not acknowledged
        self._next = iss  # next byte to send
        self._rcv = 0  # next byte expected
        self._irs = 0
        self._buffer = bytearray()  # from _una on (after the handshake)
        self._peer_window = 65535
        self._closing = False
        self._fin_sent = False
        self._peer_done = False
        self._tries = 0
        self._ack_due = False
        self._out: list[Segment] = []

    @classmethod
    def connect(cls, app: App, local: End, remote: End, iss: int, now: int) -> Connection:
        """Open actively: the SYN is waiting in `take`."""
        self = cls(app, local, remote, iss)
        self.state = State.SYN_SENT
        self._emit(SYN, iss)
        self._next = iss + 1 & _MODULUS - 1
        self.deadline = now + RTO_HANDSHAKE_NS
        return self

    @classmethod
    def accept(cls, app: App, syn: Segment, iss: int, now: int) -> Connection:
        """Open passively, on a SYN: the SYN-ACK is waiting in `take`."""
        self = cls(app, (syn.destination, syn.destination_port), (syn.source, syn.source_port), iss)
        self.state = State.SYN_RECEIVED
        self.heard_ns = now
        self._irs = syn.seq
        self._rcv = syn.seq + 1 & _MODULUS - 1
        self._emit(SYN | ACK, iss)
        self._next = iss + 1 & _MODULUS - 1
        self.deadline = now + RTO_HANDSHAKE_NS
        return self

    def take(self) -> list[Segment]:
        """What is to be sent now, once."""
        out, self._out = self._out, []
        return out

    def send(self, data: bytes, now: int) -> None:
        """Queue bytes. ValueError when the connection is closing or holds too much unsent."""
        if self._closing or self.state is not State.OPEN:
            raise ValueError(f"send: expected an open connection, it is {self.state.value}")
        if len(self._buffer) + len(data) > BUFFER_LIMIT:
            raise ValueError(f"send: expected at most {BUFFER_LIMIT} bytes unacknowledged")
        self._buffer += data
        self._pump(now)

    def close(self, now: int) -> None:
        """No more to send: a FIN follows the last byte."""
        if self.state is State.OPEN and not self._closing:
            self._closing = True
            self._pump(now)
        elif self.state in (State.SYN_SENT, State.SYN_RECEIVED):
            self.abort()

    def abort(self) -> None:
        """Forget the connection; the peer is told, unless it has not answered yet. The application is not called."""
        if self.state in (State.OPEN, State.SYN_RECEIVED):
            self._emit(RST | ACK, self._next)
        self._finish()

    def segment(self, seg: Segment, now: int) -> None:
        """Take a segment of this connection."""
        self.heard_ns = now
        if self.state is State.SYN_SENT:
            self._in_syn_sent(seg, now)
        elif self.state is State.TIME_WAIT:
            if seg.flags & RST:
                self._end("closed")
            elif seg.length:
                self._emit(ACK, self._next)
        elif self.state is not State.CLOSED:
            self._synchronised(seg, now)
        if self._ack_due:
            self._emit(ACK, self._next)

    def timeout(self, now: int) -> None:
        """The deadline has passed: send again, or give up."""
        self.deadline = None
        if self.state is State.CLOSED:
            return
        if self.state is State.TIME_WAIT:
            self._end("closed")
            return
        if self.state is State.OPEN and self._una == self._next:
            self._end("timeout")  # our FIN was acknowledged long ago, and the peer never closed
            return
        limit = {State.SYN_SENT: SYN_RETRIES, State.SYN_RECEIVED: SYN_ACK_RETRIES}.get(self.state, DATA_RETRIES)
        if self._tries >= limit:
            self._end("timeout")
            return
        self._tries += 1
        self.retransmissions += 1
        if self.state is State.SYN_SENT:
            self._emit(SYN, self._iss)
        elif self.state is State.SYN_RECEIVED:
            self._emit(SYN | ACK, self._iss)
        else:
            self._resend()
        self._arm(now)

    def _in_syn_sent(self, seg: Segment, now: int) -> None:
        good = seg.flags & ACK and seg.ack == self._next
        if seg.flags & ACK and not good:
            if not seg.flags & RST:
                self._emit_raw(RST, seg.ack, 0)
        elif seg.flags & RST:
            if good:
                self._end("refused")
        elif seg.flags & SYN and good:
            self._irs, self._rcv = seg.seq, seg.seq + 1 & _MODULUS - 1
            self._una = seg.ack
            self._opened(seg)
            self._emit(ACK, self._next)
            self._app.opened(self)

    def _opened(self, seg: Segment) -> None:
        self.state = State.OPEN
        self._tries = 0
        self.deadline = None
        self._peer_window = seg.window

    def _synchronised(self, seg: Segment, now: int) -> None:
        if seg.flags & RST:
            if seg.seq == self._rcv:
                self._end("reset")
            return
        if seg.flags & SYN:
            if self.state is State.SYN_RECEIVED and seg.seq == self._irs:
                self._emit(SYN | ACK, self._iss)
            else:
                self._ack_due = True  # RFC 5961: a challenge, never a reset
            return
        if not seg.flags & ACK:
            return
        if self.state is State.SYN_RECEIVED:
            if seg.ack != self._next:
                self._emit_raw(RST, seg.ack, 0)
                return
            self._una = seg.ack
            self._opened(seg)
            self._app.opened(self)
        if after(seg.ack, self._next):
            self._ack_due = True
            return
        self._acknowledged(seg, now)
        if seg.length and self.state is not State.CLOSED:
            self._arrived(seg, now)

    def _acknowledged(self, seg: Segment, now: int) -> None:
        self._peer_window = seg.window
        if not after(seg.ack, self._una):
            return
        count = (seg.ack - self._una) % _MODULUS
        del self._buffer[:count]
        self._una = seg.ack
        self._tries = 0
        self.deadline = None
        if self._fin_sent and self._una == self._next:
            if self._peer_done:
                self._done(now)
            else:
                self.deadline = now + FIN_WAIT_NS
            return
        self._pump(now)
        if self._una != self._next:
            self._arm(now)

    def _arrived(self, seg: Segment, now: int) -> None:
        self._ack_due = True
        ahead = (self._rcv - seg.seq) % _MODULUS
        if ahead >= _HALF or ahead > len(seg.payload) or self._peer_done:
            return  # a gap before it, or nothing new: the acknowledgement says so
        data = seg.payload[ahead:]
        fin = bool(seg.flags & FIN)
        self._rcv = (self._rcv + len(data) + fin) % _MODULUS
        self._peer_done = fin
        if data:
            self._app.received(self, data)
        if fin and self.state is State.OPEN:
            if self._fin_sent and self._una == self._next:
                self._done(now)
            else:
                self._app.peer_closed(self)

    def _done(self, now: int) -> None:
        """Both directions are closed: the side that sent its FIN first remembers it for a while."""
        if self._ack_due:  # its own FIN was acknowledged before this FIN of the peer came
            self._emit(ACK, self._next)
            self.state = State.TIME_WAIT
            self.deadline = now + TIME_WAIT_NS
        else:
            self._end("closed")

    def _pump(self, now: int) -> None:
        """Send what the peer's window takes, then the FIN."""
        sent = (self._next - self._una) % _MODULUS - self._fin_sent
        before = self._next
        while sent < len(self._buffer) and sent < self._peer_window and not self._fin_sent:
            data = bytes(self._buffer[sent : min(sent + MSS, self._peer_window)])
            last = self._closing and sent + len(data) == len(self._buffer)
            self._emit(ACK | PSH | (FIN if last else 0), self._next, data)
            self._next = (self._next + len(data) + last) % _MODULUS
            self._fin_sent = last
            sent += len(data)
        if self._closing and not self._fin_sent and sent == len(self._buffer):
            self._emit(ACK | FIN, self._next)
            self._next = (self._next + 1) % _MODULUS
            self._fin_sent = True
        if self._next != before and self.deadline is None:
            self._arm(now)

    def _resend(self) -> None:
        """The oldest segment again."""
        data = bytes(self._buffer[:MSS])
        fin = self._fin_sent and len(data) == len(self._buffer)
        self._emit(ACK | (PSH if data else 0) | (FIN if fin else 0), self._una, data)

    def _arm(self, now: int) -> None:
        base = RTO_DATA_NS if self.state is State.OPEN else RTO_HANDSHAKE_NS
        self.deadline = now + min(base << self._tries, RTO_LIMIT_NS)

    def _emit(self, flags: int, seq: int, payload: bytes = b"") -> None:
        self._emit_raw(flags, seq, self._rcv if flags & ACK else 0, payload)

    def _emit_raw(self, flags: int, seq: int, ack: int, payload: bytes = b"") -> None:
        self._ack_due = False
        self._out.append(
            Segment(self.local[0], self.remote[0], self.local[1], self.remote[1], seq, ack, flags, payload)
        )

    def _end(self, why: str) -> None:
        if self.state is not State.CLOSED:
            self._finish()
            self._app.ended(self, why)

    def _finish(self) -> None:
        self.state = State.CLOSED
        self.deadline = None
        self._ack_due = False


def refusal(seg: Segment) -> Segment | None:
    """The RST that answers a segment of no connection; None when that was a RST itself."""
    if seg.flags & RST:
        return None
    ends = seg.destination, seg.source, seg.destination_port, seg.source_port
    if seg.flags & ACK:
        return Segment(*ends, seg.ack, 0, RST)
    return Segment(*ends, 0, (seg.seq + seg.length) % _MODULUS, RST | ACK)
