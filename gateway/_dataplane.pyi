"""The packet path of tgw: gateway/dataplane, crate `python`."""

from collections.abc import Sequence
from os import PathLike
from typing import Literal, TypedDict, final, type_check_only

__all__ = ["ConfigError", "DeviceError", "Node", "Pipeline", "read_pcap", "read_tap", "write_pcap"]

_Role = Literal["eip", "clb", "vswitch"]
_Fault = Literal["encap_fail", "loss_silent", "loss_visible", "delay", "stuck_worker", "vip_missing", "reply_loss"]

@type_check_only
class _ServerHealth(TypedDict):
    vip_id: int
    server_id: int
    port: int
    up: bool
    since_ns: int

class ConfigError(ValueError):
    """A configuration or tables are refused, and nothing of them is applied."""

    problems: list[tuple[str, str, str]]
    """(path, expected, found) of each."""

class DeviceError(OSError):
    """A port, a tap file or a capture file cannot be opened."""

@final
class Pipeline:
    """One node without threads, devices or a clock: frames and a time in, frames out."""

    def __new__(
        cls,
        role: _Role | str,
        *,
        workers: int = 1,
        tap_dir: str | PathLike[str] | None = None,
        node: str = "sim",
        tap_capacity: int = 65536,
        flow_capacity: int = 65536,
        seed: int = 0,
        boot_id: str | None = None,
    ) -> Pipeline:
        """`workers` does not count the dispatcher of a CLB. Without `tap_dir` the taps are in memory, and the records
        of a tap that nobody takes are lost (and counted) beyond `tap_capacity`, a power of two. `boot_id`: 32 hex
        digits, random when left out. ConfigError; DeviceError when a tap cannot be made.
        """

    def apply(self, tables_json: str) -> None:
        """Use these tables (JSON) from the next frame on. ConfigError, and nothing applied, when they are wrong."""

    def process(self, frames: Sequence[tuple[int, bytes]], now_ns: int) -> list[tuple[int, bytes]]:
        """Take (port, frame) pairs in at `now_ns` (ns since 1970); the (port, frame) pairs that come out, held frames
        that are due among them. Frames beyond 1920 bytes are cut, as a packet socket cuts them.
        """

    def take_records(self) -> bytes:
        """The packed point records (128 bytes each) since the last call, worker by worker."""

    def counters(self) -> list[dict[str, int]]:
        """For each tap (a CLB's dispatcher first): contract.records.COUNTERS by name, and drop.<REASON>."""

    def health(self) -> list[_ServerHealth]:
        """What health checks have found of each real server of each listener that checks: whether it is up, and since
        when (ns since 1970; 0: as long as this node has known it). Empty before the first tables.
        """

    def tap_paths(self) -> list[str]:
        """The tap files; none without a tap_dir."""

    def inject(
        self,
        kind: _Fault | str,
        probability: float,
        seed: int,
        *,
        worker: int | None = None,
        delay_us: int | None = None,
        vip_id: int | None = None,
    ) -> None:
        """Inject a fault besides those that are. ValueError names what is wrong with it."""

    def clear_faults(self) -> None:
        """End all faults."""

    def beat(self, now_ns: int) -> None:
        """What every worker that turns owes at `now_ns`: its heartbeat, and a sweep over idle flows."""

    def close(self, now_ns: int) -> None:
        """End in good order: frames inside are dropped as SHUTTING_DOWN, the taps are marked closed."""

@final
class Node:
    """One EIP, CLB or vSwitch node with threads and packet sockets."""

    def __new__(cls, config_json: str) -> Node:
        """A node that does nothing yet. `config_json`: name, role, boot_id (32 hex digits), tap_dir, tap_capacity,
        workers, flow_capacity, ring_capacity, seed, ports [{index, interface, kind: "af_packet"}]. ConfigError.
        """

    def start(self) -> None:
        """Open ports and taps, start the workers. DeviceError names the port or file that does not open."""

    def stop(self) -> None:
        """End the workers; their taps are marked closed. Returns once they have ended. May be called again."""

    def apply(self, tables_json: str) -> None:
        """Check tables (JSON) and give them to every worker; returns when all act by them.

        ConfigError, and nothing applied, when they are wrong. TimeoutError when a worker does not turn; those that do
        have the tables, and the same may be applied again.
        """

    def counters(self) -> list[dict[str, int]]:
        """As Pipeline.counters; empty before the start, still readable after the stop."""

    def health(self) -> list[_ServerHealth]:
        """As Pipeline.health."""

    def tap_paths(self) -> list[str]:
        """The tap files."""

    def is_running(self) -> bool:
        """Whether every worker's thread runs (a stuck one does)."""

    def inject(
        self,
        kind: _Fault | str,
        probability: float,
        seed: int,
        *,
        worker: int | None = None,
        delay_us: int | None = None,
        vip_id: int | None = None,
    ) -> None:
        """Inject a fault besides those that are. ValueError names what is wrong with it."""

    def clear_faults(self) -> None:
        """End all faults."""

    @property
    def boot_id(self) -> str:
        """The boot id of the configuration."""

def read_pcap(path: str | PathLike[str]) -> list[tuple[int, bytes]]:
    """The frames of a capture file (classic pcap, Ethernet) as (ns since 1970, frame). DeviceError."""

def write_pcap(path: str | PathLike[str], frames: Sequence[tuple[int, bytes]]) -> None:
    """Write (ns since 1970, frame) pairs to a capture file, made anew. DeviceError."""

def read_tap(path: str | PathLike[str]) -> bytes:
    """The packed point records that a tap file still holds, the oldest first. DeviceError; ValueError for no tap."""
