"""What a node knows of its ports: its own MACs and addresses, and the MACs of its next hops, all by netlink.

The kernel of the node's namespace owns the link addresses, so it also does ARP and neighbour discovery: a datagram to
the next hop makes it resolve, and its neighbour table has the answer.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable
from typing import Any, Literal, Protocol, Self

from pydantic import Field, IPvAnyAddress, model_validator

from contract.documents import Strict

# Neighbour states that hold a usable address: reachable, stale, delay, probe, noarp, permanent.
_USABLE = 0x02 | 0x04 | 0x08 | 0x10 | 0x40 | 0x80
DISCARD = 9


class Port(Strict):
    """[[port]]: `index` 0 is the fabric, 1 the edge of an EIP node, 1 and up the real servers of a vSwitch.

    `next_hop` (and `next_hop6`): the neighbour that every frame sent here goes to.
    `kind`: "af_xdp" (an error where it does not work), "af_packet", or "auto": AF_XDP where it works, else AF_PACKET.
    """

    index: int = Field(ge=0, le=65535)
    interface: str = Field(min_length=1, max_length=15)
    next_hop: IPvAnyAddress | None = None
    next_hop6: IPvAnyAddress | None = None
    # At most what the native core's frame buffers hold.
    mtu: int = Field(ge=576, le=1906)
    kind: Literal["auto", "af_xdp", "af_packet"] = "auto"

    @model_validator(mode="after")
    def _reachable(self) -> Self:
        if self.next_hop is None and self.next_hop6 is None:
            raise ValueError("next_hop: expected the address of the neighbour (next_hop, next_hop6 or both)")
        return self


class PortError(OSError):
    """A port cannot be used; the message names the interface and what is missing."""


class Unresolved(PortError):
    """A next hop has not answered ARP or neighbour discovery (yet)."""


class Netlink(Protocol):
    """What is asked of netlink (pyroute2's IPRoute behind `Kernel`)."""

    def link(self, interface: str) -> tuple[int, str] | None:
        """Index and MAC of an interface."""

    def addresses(self) -> list[str]:
        """Every address of this network namespace, without prefix lengths."""

    def neighbour(self, index: int, address: str) -> str | None:
        """The neighbour's MAC, when the kernel knows one."""


class Kernel:
    """Netlink of this process's network namespace. One use: open, ask, close."""

    def __init__(self) -> None:
        from pyroute2 import IPRoute

        self._route = IPRoute()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._route.close()

    def link(self, interface: str) -> tuple[int, str] | None:
        found = self._route.link_lookup(ifname=interface)
        if not found:
            return None
        links = list(self._route.get_links(found[0]))
        # It may have gone between the two questions.
        return (found[0], str(links[0].get_attr("IFLA_ADDRESS"))) if links else None

    def addresses(self) -> list[str]:
        found = [message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS") for message in self._route.get_addr()]
        return sorted({str(address) for address in found if address})

    def neighbour(self, index: int, address: str) -> str | None:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        for message in self._route.get_neighbours(family=family, ifindex=index, dst=address):
            mac = message.get_attr("NDA_LLADDR")
            if mac and message["state"] & _USABLE:
                return str(mac)
        return None


def solicit(interface: str, address: str) -> None:
    """Make the kernel resolve a neighbour: send it a datagram that it will throw away."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    scope = socket.if_nametoindex(interface) if ipaddress.ip_address(address).is_link_local else 0
    target = (address, DISCARD, 0, scope) if family == socket.AF_INET6 else (address, DISCARD)
    with socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sender:
        try:
            sender.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode())
            sender.sendto(b"", target)
        except OSError:
            return  # no route or link yet: asked again with the next try


def now(ports: list[Port]) -> list[dict[str, Any]]:
    """`read` of the kernel of this network namespace; also PortError when the kernel does not answer."""
    from pyroute2 import NetlinkError

    try:
        with Kernel() as kernel:
            return read(ports, kernel)
    except NetlinkError as error:
        raise PortError(f"netlink: {error}") from None


def read(ports: list[Port], netlink: Netlink, ask: Callable[[str, str], None] = solicit) -> list[dict[str, Any]]:
    """The `ports` section of the native core's tables.

    PortError when an interface is missing; Unresolved, once every missing next hop has been solicited.
    """
    local = netlink.addresses()
    out: list[dict[str, Any]] = []
    waiting: list[str] = []
    for port in ports:
        link = netlink.link(port.interface)
        if link is None:
            raise PortError(f"{port.interface}: no such interface in this network namespace (port {port.index})")
        index, mac = link
        hops = [str(hop) for hop in (port.next_hop, port.next_hop6) if hop is not None]
        found = next((answer for hop in hops if (answer := netlink.neighbour(index, hop)) is not None), None)
        if found is None:
            for hop in hops:
                ask(port.interface, hop)
            waiting.append(f"{port.interface}: the next hop {' or '.join(hops)} does not answer")
            continue
        out.append(
            {
                "index": port.index,
                "interface": port.interface,
                "mac": mac,
                "next_hop_mac": found,
                "mtu": port.mtu,
                "host_addresses": local,
            }
        )
    if waiting:
        raise Unresolved("; ".join(waiting))
    return out
