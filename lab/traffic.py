"""Real HTTP clients that never stop asking: `python -m lab.traffic FLEET_JSON LOG [--rate R] [--kept N] [--seed S]`.

Two kinds of request over every (VIP, port) of the fleet document: `new` opens a connection, asks once and closes;
`kept` asks again and again on a connection that stays open, and opens another when it breaks. Each request is one
JSON line: VIP, port, kind, start and end (ns since 1970), outcome, and the server that answered.
Bounded: at most `rate` new connections a second, `kept` open ones, LIMIT_IN_FLIGHT requests at a time.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from contract.fleet import Fleet

CONNECT_TIMEOUT_S, ANSWER_TIMEOUT_S = 2.0, 2.0
KEPT_PAUSE_S = 2.0
LIMIT_IN_FLIGHT = 200
Kind = Literal["new", "kept"]


@dataclass(frozen=True, slots=True)
class Target:
    """A listener as a client sees it."""

    vip: str
    vip_id: int
    address: str
    port: int


@dataclass(frozen=True, slots=True)
class Request:
    """One request as it went. `outcome`: ok, timeout, refused, reset, unreachable, bad_answer."""

    vip: str
    vip_id: int
    port: int
    kind: Kind
    start_ns: int
    end_ns: int
    outcome: str
    server: str | None


class BadAnswer(ValueError):
    """What came back is not the answer of a real server."""


def targets(fleet: Fleet) -> list[Target]:
    """Every TCP listener of the fleet."""
    return [Target(v.name, v.id, str(v.public), x.port) for v in fleet.vips for x in v.listeners if x.protocol == "tcp"]


def outcome_of(error: BaseException) -> str:
    """The word for why a request failed."""
    words: Sequence[tuple[type[BaseException], str]] = (
        (TimeoutError, "timeout"),
        (ConnectionRefusedError, "refused"),
        (ConnectionError, "reset"),
        (asyncio.IncompleteReadError, "reset"),
        (BadAnswer, "bad_answer"),
        (OSError, "unreachable"),
    )
    return next((word for kind, word in words if isinstance(error, kind)), "bad_answer")


async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, target: Target, close: bool) -> str:
    """One GET on an open connection; the name of the server. BadAnswer, ConnectionError, IncompleteReadError."""
    end = "close" if close else "keep-alive"
    writer.write(f"GET /{target.vip} HTTP/1.1\r\nHost: {target.vip}\r\nConnection: {end}\r\n\r\n".encode())
    await writer.drain()
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    except asyncio.LimitOverrunError as error:
        raise BadAnswer(str(error)) from None
    status, *lines = head.split("\r\n")
    fields = {k.strip().lower(): v.strip() for k, _, v in (line.partition(":") for line in lines)}
    length = fields.get("content-length", "")
    if not status.startswith("HTTP/1.1 200") or not length.isdigit() or int(length) > 65536:
        raise BadAnswer(status)
    body = (await reader.readexactly(int(length))).decode("latin-1").split()
    # The path proves that this VIP's request came back, not another one's.
    if len(body) < 2 or body[1] != f"/{target.vip}":
        raise BadAnswer(" ".join(body))
    return body[0]


class Log:
    """Appends requests to a file, flushed a few times a second by `flush`."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._lines: list[str] = []

    def add(self, request: Request) -> None:
        self._lines.append(json.dumps(asdict(request)))

    def flush(self) -> None:
        if self._lines:
            os.write(self._descriptor, ("\n".join(self._lines) + "\n").encode())
            self._lines.clear()


class Client:
    """Both kinds of traffic over some targets."""

    def __init__(self, aims: Sequence[Target], log: Log, rate: float, kept: int, seed: int) -> None:
        self._targets = list(aims)
        self._log = log
        self._rate = rate
        self._kept = kept
        self._random = random.Random(seed)  # noqa: S311 - pacing, no secret
        self._in_flight = asyncio.Semaphore(LIMIT_IN_FLIGHT)

    async def run(self, stop: asyncio.Event) -> None:
        """Ask until `stop`."""
        tasks = [asyncio.create_task(self._new()), asyncio.create_task(self._flush())]
        chosen = self._random.sample(self._targets, min(self._kept, len(self._targets)))
        tasks += [asyncio.create_task(self._keep(t)) for t in chosen]
        await stop.wait()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._log.flush()

    async def _flush(self) -> None:
        while True:
            await asyncio.sleep(0.25)
            self._log.flush()

    async def _new(self) -> None:
        running: set[asyncio.Task[None]] = set()
        order = list(self._targets)
        due = time.monotonic()
        while True:
            self._random.shuffle(order)
            for target in order:
                async with self._in_flight:
                    pass
                task = asyncio.create_task(self._once(target))
                running.add(task)
                task.add_done_callback(running.discard)
                # Behind after a pause of the machine: go on from now, no burst.
                due = max(due + 1 / self._rate, time.monotonic() - 0.1)
                await asyncio.sleep(max(0.0, due - time.monotonic()))

    async def _once(self, target: Target) -> None:
        async with self._in_flight:
            start = time.time_ns()
            server: str | None = None
            outcome: str | None = None
            writer: asyncio.StreamWriter | None = None
            try:
                async with asyncio.timeout(CONNECT_TIMEOUT_S):
                    reader, writer = await asyncio.open_connection(target.address, target.port)
                async with asyncio.timeout(ANSWER_TIMEOUT_S):
                    server = await ask(reader, writer, target, close=True)
                outcome = "ok"
            except (OSError, asyncio.IncompleteReadError, BadAnswer) as error:
                outcome = outcome_of(error)
            finally:
                # Cut off by the end of the run: neither a success nor a failure.
                if outcome is not None:
                    self._note(target, "new", start, outcome, server)
                await _close(writer)

    async def _keep(self, target: Target) -> None:
        await asyncio.sleep(self._random.uniform(0, KEPT_PAUSE_S))
        reader: asyncio.StreamReader | None = None
        writer: asyncio.StreamWriter | None = None
        while True:
            start = time.time_ns()
            server: str | None = None
            outcome = "ok"
            try:
                if reader is None or writer is None:
                    async with asyncio.timeout(CONNECT_TIMEOUT_S):
                        reader, writer = await asyncio.open_connection(target.address, target.port)
                async with asyncio.timeout(ANSWER_TIMEOUT_S):
                    server = await ask(reader, writer, target, close=False)
            except (OSError, asyncio.IncompleteReadError, BadAnswer) as error:
                outcome = outcome_of(error)
                await _close(writer)
                reader = writer = None
            self._note(target, "kept", start, outcome, server)
            await asyncio.sleep(KEPT_PAUSE_S)

    def _note(self, target: Target, kind: Kind, start: int, outcome: str, server: str | None) -> None:
        self._log.add(Request(target.vip, target.vip_id, target.port, kind, start, time.time_ns(), outcome, server))


async def _close(writer: asyncio.StreamWriter | None) -> None:
    if writer is not None:
        writer.transport.abort() if writer.transport.get_write_buffer_size() else writer.close()
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(0.5):
                await writer.wait_closed()


def _arguments(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m lab.traffic")
    parser.add_argument("fleet", type=Path)
    parser.add_argument("log", type=Path)
    parser.add_argument("--rate", type=float, default=10.0, help="new connections a second, 0.1 to 1000")
    parser.add_argument("--kept", type=int, default=20, help="connections kept open, 0 to 1000")
    parser.add_argument("--seed", type=int, default=1)
    found = parser.parse_args(arguments)
    if not 0.1 <= found.rate <= 1000 or not 0 <= found.kept <= 1000:
        parser.error(f"expected --rate 0.1 to 1000 and --kept 0 to 1000, got {found.rate} and {found.kept}")
    return found


async def _serve(found: argparse.Namespace) -> None:
    fleet = Fleet.model_validate_json(found.fleet.read_text())
    client = Client(targets(fleet), Log(found.log), found.rate, found.kept, found.seed)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await client.run(stop)


def main(arguments: Sequence[str]) -> int:
    """Ask until SIGTERM."""
    asyncio.run(_serve(_arguments(arguments)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
