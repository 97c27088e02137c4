"""One EIP, CLB or vSwitch process: the native packet path, and an API to tell it what to do.

    python -m gateway.node CONFIG

SIGTERM ends it within 2 s: its routes go first, then forwarding, and its taps say that they are closed. SIGKILL loses
nothing but the frames inside: the taps are files.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import signal
import sys
import time
from pathlib import Path
from typing import Any

import structlog

from contract.documents import DocumentError, Problem
from gateway import _dataplane, node_api, node_ports, node_traffic
from gateway.node_state import Desired, NodeSettings, Refused
from service import listen, logs, settings

log = structlog.get_logger()

# How long a desired state waits for next hops that have not answered yet.
RESOLVE_S, RESOLVE_EVERY_S = 2.0, 0.1
# From the word that no route is left to the end of forwarding: the speaker looks every 100 ms, BGP takes a few more.
DRAIN_S = 0.4


class NodeProcess:
    """The process around gateway._dataplane.Node; what the API calls."""

    def __init__(self, config: NodeSettings) -> None:
        self._config = config
        self._boot_id = secrets.token_hex(16)
        self._started_ns = time.time_ns()
        self._desired = Desired(config)
        self._faults: list[dict[str, Any]] = []
        self._applying = asyncio.Lock()
        self._native = _dataplane.Node(json.dumps(native_config(config, self._boot_id)))
        self.allow_faults = config.allow_faults
        self.role: str = config.role

    def start(self) -> None:
        """Start forwarding (everything is dropped as NO_CONFIG until there are tables). DeviceError."""
        # Nobody else may touch the files we have mapped: cutting one off would end the process.
        for directory in (self._config.state_dir, self._config.tap_dir):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Before anything forwards: what an earlier run announced must not be taken for ours.
        self._write_routes()
        self._native.start()
        self._write_routes()
        devices = "; ".join(device["text"] for device in self._native.devices())
        log.info("forwarding", node=self._config.name, role=self._config.role, boot_id=self._boot_id, devices=devices)

    async def stop(self) -> None:
        """Routes first, then forwarding."""
        if self._desired.epoch is not None:
            self._write_routes(announce=False)
            await asyncio.sleep(DRAIN_S)
        await asyncio.to_thread(self._native.stop)
        log.info("stopped", node=self._config.name)

    async def refresh(self) -> None:
        """For ever: notice when an interface or a next hop has another MAC, and act by it."""
        while True:
            await asyncio.sleep(self._config.refresh_s)
            if self._desired.epoch is None:
                continue
            try:
                async with self._applying:
                    ports = await asyncio.to_thread(self._read_ports)
                    if ports != self._desired.ports:
                        await self._give(self._desired.document, ports)
                        log.info("ports changed", ports=ports)
            except (OSError, TimeoutError, Refused) as error:
                log.warning("ports not refreshed", reason=str(error))

    def status(self) -> dict[str, Any]:
        speaker: Any = None
        with contextlib.suppress(OSError, ValueError, RecursionError):
            speaker = json.loads((self._config.state_dir / "speaker.json").read_text())
        return {
            "node": self._config.name,
            "role": self._config.role,
            "boot_id": self._boot_id,
            "pid": os.getpid(),
            "epoch": self._desired.epoch or 0,
            "started_ns": self._started_ns,
            "workers": len(self._native.counters()),
            "running": self._native.is_running(),
            "devices": self._native.devices(),
            "uptime_s": (time.time_ns() - self._started_ns) / 1e9,
            "faults": self._faults,
            "speaker": speaker,
        }

    def counters(self) -> list[dict[str, int]]:
        return self._native.counters()

    def traffic(self) -> node_traffic.Native:
        return self._native.traffic()

    def residence(self) -> node_traffic.Times:
        return self._native.residence()

    def health(self) -> list[dict[str, Any]]:
        return [{**one} for one in self._native.health()]

    async def apply(self, document: Any) -> int:
        """Refused, Stale, PortError or TimeoutError: then the tables are as they were (TimeoutError: but a worker that
        does not turn is in the way, the others have them already)."""
        async with self._applying:
            merged = self._desired.check(document)
            ports = await self._resolve_ports()
            await self._give(merged, ports)
            log.info("tables applied", epoch=merged["epoch"])
            return int(merged["epoch"])

    def faults(self) -> list[dict[str, Any]]:
        return self._faults

    def inject(self, fault: dict[str, Any]) -> None:
        self._native.inject(**fault)
        self._faults.append(fault)
        log.warning("fault injected", **fault)

    def clear_faults(self) -> None:
        self._native.clear_faults()
        self._faults.clear()
        log.warning("faults cleared")

    async def _give(self, merged: dict[str, Any], ports: list[dict[str, Any]]) -> None:
        try:
            await asyncio.to_thread(self._native.apply, self._desired.tables(merged, ports))
        except _dataplane.ConfigError as error:
            raise Refused([Problem(*problem) for problem in error.problems]) from None
        except _dataplane.DeviceError as error:
            raise node_ports.PortError(str(error)) from None
        self._desired.took(merged, ports)
        # Only now: routes follow tables.
        self._write_routes()

    async def _resolve_ports(self) -> list[dict[str, Any]]:
        until = time.monotonic() + RESOLVE_S
        while True:
            try:
                return await asyncio.to_thread(self._read_ports)
            except node_ports.Unresolved:
                if time.monotonic() >= until:
                    raise
                await asyncio.sleep(RESOLVE_EVERY_S)

    def _read_ports(self) -> list[dict[str, Any]]:
        return node_ports.now(self._config.port)

    def _write_routes(self, announce: bool = True) -> None:
        routes = self._desired.routes(self._boot_id, os.getpid(), self._native.tap_paths(), announce)
        write_atomically(self._config.state_dir / "routes.json", json.dumps(routes))


def native_config(config: NodeSettings, boot_id: str) -> dict[str, Any]:
    """The native core's part of the settings."""
    same = ("name", "role", "tap_capacity", "flow_capacity", "ring_capacity", "workers", "dispatchers")
    return {
        **{key: getattr(config, key) for key in same},
        "boot_id": boot_id,
        "tap_dir": str(config.tap_dir),
        "ports": [{"index": p.index, "interface": p.interface, "kind": p.kind} for p in config.port],
    }


def write_atomically(path: Path, text: str) -> None:
    """Readers see the old file or the new one, never a part."""
    part = path.with_name(f".{path.name}.new")
    part.write_text(text)
    part.replace(path)


async def run(config: NodeSettings) -> None:
    """Until SIGTERM or SIGINT. DeviceError when a port does not open, OSError when the API cannot listen."""
    process = NodeProcess(config)
    process.start()
    server = listen.server(node_api.create(config.name, process), config.api)
    # Signals are ours: forwarding ends in order, and the API with it.
    server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign, assignment]
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    serving = asyncio.create_task(server.serve())
    refreshing = asyncio.create_task(process.refresh())
    waiting = asyncio.create_task(ended.wait())
    try:
        await asyncio.wait((serving, waiting), return_when=asyncio.FIRST_COMPLETED)
    finally:
        refreshing.cancel()
        waiting.cancel()
        await process.stop()
        server.should_exit = True
        await asyncio.wait((serving,), timeout=1.0)
    if not ended.is_set():
        serving.result()  # its error, if it has one
        raise OSError("the API ended by itself")


def main(arguments: list[str]) -> int:
    """Exit status: 0 after a signal, 1 when the node could not run, 2 when its settings are wrong."""
    if len(arguments) != 1:
        print("usage: python -m gateway.node CONFIG", file=sys.stderr)
        return 2
    try:
        config = settings.load(arguments[0], NodeSettings, "TGW_NODE_")
    except DocumentError as error:
        settings.refuse(error)
    logs.configure("node", config.log_level)
    try:
        asyncio.run(run(config))
    except _dataplane.ConfigError as error:
        settings.refuse(DocumentError(arguments[0], [Problem(*problem) for problem in error.problems]))
    except OSError as error:
        log.error("node ended", reason=str(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
