"""The prober's network port: one AF_PACKET socket with a kernel filter, and the next hops' Ethernet addresses."""

from __future__ import annotations

import contextlib
import ctypes
import socket
import struct
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import Path
from typing import Any

from prober.receive import filter_program
from prober.send import Link

_SO_ATTACH_FILTER = 26
_SO_TIMESTAMPNS = 35
_SOL_PACKET = 263
_PACKET_STATISTICS = 6
_PACKET_IGNORE_OUTGOING = 23
_ETH_P_ALL = 0x0003
_FRAME = 2048
_ANCILLARY = socket.CMSG_SPACE(16)
_DISCARD = 9


class Port:
    """Frames in and out of one interface, of packets to `networks` only. OSError when it cannot be opened."""

    def __init__(self, interface: str, networks: Sequence[IPv4Network | IPv6Network]) -> None:
        self.interface = interface
        self.index = socket.if_nametoindex(interface)
        self.mac = bytes.fromhex(Path(f"/sys/class/net/{interface}/address").read_text().strip().replace(":", ""))
        # Protocol 0 takes nothing: the filter stands before the socket is bound to frames.
        self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
        try:
            self.set_networks(networks)
            self.socket.setsockopt(_SOL_PACKET, _PACKET_IGNORE_OUTGOING, 1)
            self.socket.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
            self.socket.bind((interface, _ETH_P_ALL))
        except OSError:
            self.socket.close()
            raise

    def set_networks(self, networks: Sequence[IPv4Network | IPv6Network]) -> None:
        """Take packets to these networks from now on."""
        program = filter_program(networks)
        code = ctypes.create_string_buffer(program)
        self.socket.setsockopt(
            socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HL", len(program) // 8, ctypes.addressof(code))
        )

    def transmit(self, frame: bytes) -> bool:
        """Put one frame on the wire; False when the kernel would not take it."""
        try:
            return self.socket.send(frame) == len(frame)
        except OSError:
            return False

    def receive(self, limit: int, now_ns: int) -> list[tuple[bytes, int]]:
        """Up to `limit` waiting frames, each with the time the kernel took it in [ns since 1970]."""
        out = []
        for _ in range(limit):
            try:
                data, ancillary, _, _ = self.socket.recvmsg(_FRAME, _ANCILLARY)
            except OSError:  # nothing more, or the link went down: the next turn sees
                break
            at = now_ns
            for level, kind, value in ancillary:
                if level == socket.SOL_SOCKET and kind == _SO_TIMESTAMPNS and len(value) == 16:
                    seconds, nanoseconds = struct.unpack("qq", value)
                    at = seconds * 1_000_000_000 + nanoseconds
            out.append((data, at))
        return out

    def lost(self) -> int:
        """Frames the kernel dropped before this socket since the last call (its queue was full)."""
        _, dropped = struct.unpack("II", self.socket.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8))
        return int(dropped)

    def close(self) -> None:
        """Close the socket."""
        self.socket.close()


class Neighbours:
    """Ethernet addresses of the next hops, from the kernel's neighbour table (the kernel speaks ARP and ND)."""

    def __init__(self, port: Port, next_hop: IPv4Address | None, next_hop6: IPv6Address | None) -> None:
        from pyroute2 import IPRoute

        self._port = port
        self._hops = next_hop, next_hop6
        self._route: Any = IPRoute()

    def link(self) -> Link:
        """What is known now; asks the kernel to resolve what is not."""
        four, six = (None if hop is None else self._find(hop) for hop in self._hops)
        return Link(self._port.mac, four, six)

    def _find(self, hop: IPv4Address | IPv6Address) -> bytes | None:
        family = socket.AF_INET if hop.version == 4 else socket.AF_INET6
        for entry in self._dump(family):
            attributes = dict(entry["attrs"])
            mac = attributes.get("NDA_LLADDR")
            # NUD_INCOMPLETE (1) and NUD_FAILED (32) hold no address to trust.
            if attributes.get("NDA_DST") == str(hop) and mac and not entry["state"] & 0x21:
                return bytes.fromhex(mac.replace(":", ""))
        self._ask(family, hop)
        return None

    def _dump(self, family: int) -> list[Any]:
        from pyroute2 import NetlinkError

        try:
            return list(self._route.get_neighbours(family=family, ifindex=self._port.index))
        except NetlinkError:  # the table changed under the reading, or the interface went: asked again soon
            return []

    def _ask(self, family: int, hop: IPv4Address | IPv6Address) -> None:
        """A datagram to the next hop makes the kernel resolve it."""
        with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as knock:
            knock.setblocking(False)
            address = (str(hop), _DISCARD) if family == socket.AF_INET else (str(hop), _DISCARD, 0, self._port.index)
            knock.sendto(b"", address)

    def close(self) -> None:
        """Close the netlink socket."""
        self._route.close()
