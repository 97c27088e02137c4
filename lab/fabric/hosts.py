"""Simulated hosts on simulated links: a TCP/IP stack, HTTP servers on it, and the HTTP clients of the region.

The clients ask as lab.traffic does, with the same words and limits, and hand over the same Request.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from ipaddress import ip_address
from typing import Literal

from lab.fabric import wire
from lab.fabric.engine import ETHERNET, Fabric
from lab.fabric.tcp import App, Connection, State, refusal
from lab.traffic import ANSWER_TIMEOUT_S, CONNECT_TIMEOUT_S, KEPT_PAUSE_S, LIMIT_IN_FLIGHT, Request, Target

CONNECTION_LIMIT = 8192
IDLE_NS, SWEEP_NS = 60_000_000_000, 10_000_000_000
HEAD_LIMIT = 16384
EPHEMERAL = range(32768, 60999)

_Key = tuple[bytes, int, bytes, int]


class Host:
    """A station with one link (port 0), some addresses and TCP. `accept`: who takes a connection to (address, port)."""

    def __init__(self, fabric: Fabric, name: str, mac: bytes, next_hop: bytes, addresses: Iterable[str]) -> None:
        self.name = name
        self.fabric = fabric
        self._mac = mac
        self._ethernet = {4: next_hop + mac + wire.IPV4, 16: next_hop + mac + wire.IPV6}
        self._addresses = {ip_address(a).packed for a in addresses}
        self._connections: dict[_Key, Connection] = {}
        self._identification = fabric.random.getrandbits(16)
        fabric.after(SWEEP_NS, self._sweep)

    def __len__(self) -> int:
        return len(self._connections)

    def accept(self, address: bytes, port: int) -> App | None:
        """Who takes a new connection; None refuses it. A host that only asks refuses all."""
        return None

    def receive(self, port: int, frame: bytes) -> None:
        """Take a frame, or drop it for a counted reason."""
        if frame[:6] != self._mac:
            return self.fabric.drop("host_wrong_mac")
        packet = frame[ETHERNET:]
        if wire.destination_of(packet) not in self._addresses:
            return self.fabric.drop("host_not_ours")
        try:
            segment = wire.parse(packet)
        except wire.Unreadable as error:
            return self.fabric.drop(f"host_{error}")
        self.fabric.deliver()
        self._segment(segment)
        return None

    def connect(self, app: App, address: str, port: int) -> Connection:
        """Open a connection from a free port. OSError when none is free, or no address of that family is here."""
        remote = ip_address(address).packed
        local = next((a for a in sorted(self._addresses) if len(a) == len(remote)), None)
        if local is None or len(self._connections) >= CONNECTION_LIMIT:
            raise OSError("no local address or port")
        for _ in range(64):
            source_port = self.fabric.random.choice(EPHEMERAL)
            if (local, source_port, remote, port) not in self._connections:
                break
        else:
            raise OSError("no free port")
        iss = self.fabric.random.getrandbits(32)
        connection = Connection.connect(app, (local, source_port), (remote, port), iss, self.fabric.now)
        self._connections[local, source_port, remote, port] = connection
        self.settle(connection)
        return connection

    def settle(self, connection: Connection) -> None:
        """Send what a connection has to send and plan its next look at the clock; needed after every call on it."""
        for segment in connection.take():
            self._send(segment)
        if connection.state is State.CLOSED:
            self._connections.pop((*connection.local, *connection.remote), None)
        elif connection.deadline is not None and (connection.wake is None or connection.deadline < connection.wake):
            connection.wake = connection.deadline
            self.fabric.at(connection.deadline, self._look, connection, connection.wake)

    def _segment(self, segment: wire.Segment) -> None:
        key = segment.destination, segment.destination_port, segment.source, segment.source_port
        connection = self._connections.get(key)
        fresh = segment.flags & (wire.SYN | wire.ACK | wire.RST | wire.FIN) == wire.SYN
        if connection is not None and connection.state is State.TIME_WAIT and fresh:
            del self._connections[key]  # RFC 6191: the ports are used again
            connection = None
        if connection is None and fresh and len(self._connections) < CONNECTION_LIMIT:
            app = self.accept(segment.destination, segment.destination_port)
            if app is not None:
                iss = self.fabric.random.getrandbits(32)
                connection = self._connections[key] = Connection.accept(app, segment, iss, self.fabric.now)
                return self.settle(connection)
        if connection is None:
            answer = refusal(segment)
            if answer is not None:
                self._send(answer)
            return None
        connection.segment(segment, self.fabric.now)
        return self.settle(connection)

    def _look(self, connection: Connection, planned: int) -> None:
        if connection.wake != planned:
            return
        connection.wake = None
        if connection.deadline is not None and connection.deadline <= self.fabric.now:
            connection.timeout(self.fabric.now)
        self.settle(connection)

    def _send(self, segment: wire.Segment) -> None:
        self._identification = self._identification + 1 & 0xFFFF
        packet = wire.build(segment, identification=self._identification)
        self.fabric.originate(self, 0, self._ethernet[len(segment.destination)] + packet)

    def _sweep(self) -> None:
        for connection in list(self._connections.values()):
            if connection.state is State.OPEN and self.fabric.now - connection.heard_ns > IDLE_NS:
                connection.abort()
                self.settle(connection)
        self.fabric.after(SWEEP_NS, self._sweep)


class HttpServer(Host):
    """A real server: answers every GET with its name, the path and the client it saw, as lab.httpd does.

    `services`: (address, port) pairs it listens on; other ports of its addresses are refused.
    """

    def __init__(
        self,
        fabric: Fabric,
        name: str,
        mac: bytes,
        next_hop: bytes,
        services: Iterable[tuple[str, int]],
    ) -> None:
        self._services = {(ip_address(a).packed, p) for a, p in services}
        super().__init__(fabric, name, mac, next_hop, [str(ip_address(a)) for a, _ in self._services])

    def accept(self, address: bytes, port: int) -> App | None:
        return _Responder(self) if (address, port) in self._services else None


class _Responder:
    """One connection of a server. A request that is no GET is answered with 400, and that is the end."""

    def __init__(self, server: HttpServer) -> None:
        self._server = server
        self._head = b""

    def opened(self, connection: Connection) -> None:
        """Nothing to say before the request."""

    def received(self, connection: Connection, data: bytes) -> None:
        now = self._server.fabric.now
        self._head += data
        while b"\r\n\r\n" in self._head:
            head, self._head = self._head.split(b"\r\n\r\n", 1)
            method, _, rest = head.partition(b"\r\n")[0].partition(b" ")
            path = rest.partition(b" ")[0].decode("latin-1")
            if method != b"GET" or not path.startswith("/"):
                self._answer(connection, "400 Bad Request", "expected GET\n", now)
                connection.close(now)
                return
            client = ip_address(connection.remote[0])
            self._answer(connection, "200 OK", f"{self._server.name} {path} {client}\n", now)
            if b"\r\nconnection: close" in head.lower():
                connection.close(now)
                return
        if len(self._head) > HEAD_LIMIT:
            connection.abort()

    def peer_closed(self, connection: Connection) -> None:
        connection.close(self._server.fabric.now)

    def ended(self, connection: Connection, why: str) -> None:
        """The client has no more questions."""

    @staticmethod
    def _answer(connection: Connection, status: str, body: str, now: int) -> None:
        head = f"HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {len(body)}\r\n\r\n"
        connection.send((head + body).encode("latin-1"), now)


class Asker:
    """One conversation of a client with one listener: connect, ask, read, and (kept) ask again after a pause."""

    def __init__(self, client: HttpClient, target: Target, kind: Literal["new", "kept"]) -> None:
        self._client = client
        self._target = target
        self._kind = kind
        self._connection: Connection | None = None
        self._read = b""
        self._started: int | None = None
        self._number = 0

    def ask(self) -> None:
        """Start one request, on the open connection if there is one."""
        fabric = self._client.fabric
        self._number += 1
        self._started = fabric.now
        self._read = b""
        if self._connection is not None:
            self._question(self._connection)
            self._client.settle(self._connection)
            return
        try:
            self._connection = self._client.connect(self, self._target.address, self._target.port)
        except OSError:
            self._finish("unreachable", None)
            return
        fabric.after(round(CONNECT_TIMEOUT_S * 1e9), self._late, self._number, True)

    def opened(self, connection: Connection) -> None:
        self._question(connection)

    def received(self, connection: Connection, data: bytes) -> None:
        self._read += data
        if len(self._read) > HEAD_LIMIT:
            self._finish("bad_answer", None)
        elif (answer := _answer_in(self._read)) is not None:
            status, body = answer
            words = body.split()
            good = status.startswith("HTTP/1.1 200") and len(words) > 1 and words[1] == f"/{self._target.vip}"
            self._finish("ok" if good else "bad_answer", words[0] if good else None)

    def peer_closed(self, connection: Connection) -> None:
        connection.close(self._client.fabric.now)
        if self._connection is connection:
            self._connection = None
            if self._started is not None:
                self._finish("reset", None)

    def ended(self, connection: Connection, why: str) -> None:
        if self._connection is connection:
            self._connection = None
            # An idle kept connection that broke is seen by the next question, which then opens another.
            if self._started is not None:
                self._finish({"closed": "reset"}.get(why, why), None)

    def _question(self, connection: Connection) -> None:
        end = "close" if self._kind == "new" else "keep-alive"
        text = f"GET /{self._target.vip} HTTP/1.1\r\nHost: {self._target.vip}\r\nConnection: {end}\r\n\r\n"
        connection.send(text.encode(), self._client.fabric.now)
        self._client.fabric.after(round(ANSWER_TIMEOUT_S * 1e9), self._late, self._number, False)

    def _late(self, number: int, connecting: bool) -> None:
        if self._started is None or number != self._number:
            return
        connection = self._connection
        if connecting and connection is not None and connection.state is not State.SYN_SENT:
            return
        self._finish("timeout", None)

    def _finish(self, outcome: str, server: str | None) -> None:
        started, self._started = self._started, None
        connection = self._connection
        if started is None:
            return
        if connection is not None and (outcome != "ok" or self._kind == "new"):
            self._connection = None
            if outcome == "timeout" and connection.state is State.SYN_SENT:
                connection.abort()
            else:
                connection.close(self._client.fabric.now)
            self._client.settle(connection)
        self._client.finished(self, self._target, self._kind, started, outcome, server)


def _answer_in(data: bytes) -> tuple[str, str] | None:
    """Status line and body of a whole HTTP answer, None while it is not whole. A wrong one has an empty status."""
    head, mark, rest = data.partition(b"\r\n\r\n")
    if not mark:
        return None
    status, *lines = head.decode("latin-1").split("\r\n")
    fields = {k.strip().lower(): v.strip() for k, _, v in (line.partition(":") for line in lines)}
    length = fields.get("content-length", "")
    if not length.isdigit():
        return "", ""
    return (status, rest[: int(length)].decode("latin-1")) if len(rest) >= int(length) else None


class HttpClient(Host):
    """Asks every target again and again: `rate` new connections a second, and `kept` that stay open.

    `note` gets every finished request, failed ones too.
    """

    def __init__(
        self,
        fabric: Fabric,
        name: str,
        mac: bytes,
        next_hop: bytes,
        addresses: Iterable[str],
        note: Callable[[Request], None],
    ) -> None:
        super().__init__(fabric, name, mac, next_hop, addresses)
        self._note = note
        self._in_flight = 0
        self._order: list[Target] = []
        self._targets: list[Target] = []
        self._gap_ns = 0

    def start(self, targets: Sequence[Target], rate: float, kept: int) -> None:
        """Begin. ValueError for a rate that is not positive."""
        if rate <= 0:
            raise ValueError(f"rate: expected more than 0, got {rate}")
        self._targets = list(targets)
        self._gap_ns = round(1e9 / rate)
        self.fabric.after(int(self.fabric.random.random() * self._gap_ns), self._next)
        for target in self.fabric.random.sample(self._targets, min(kept, len(self._targets))):
            asker = Asker(self, target, "kept")
            self.fabric.after(int(self.fabric.random.random() * KEPT_PAUSE_S * 1e9), asker.ask)

    def finished(
        self, asker: Asker, target: Target, kind: Literal["new", "kept"], start: int, outcome: str, server: str | None
    ) -> None:
        """An asker is done with one request."""
        request = Request(target.vip, target.vip_id, target.port, kind, start, self.fabric.now, outcome, server)
        if kind == "kept":
            self.fabric.after(round(KEPT_PAUSE_S * 1e9), asker.ask)
        else:
            self._in_flight -= 1
        self._note(request)

    def _next(self) -> None:
        if self._in_flight < LIMIT_IN_FLIGHT:
            if not self._order:
                self._order = list(self._targets)
                self.fabric.random.shuffle(self._order)
            self._in_flight += 1
            Asker(self, self._order.pop(), "new").ask()
        self.fabric.after(self._gap_ns, self._next)
