"""A small fleet, and an engine driven by a virtual clock."""

from __future__ import annotations

from typing import Any

import pytest

from contract.fleet import Fleet

KEY = bytes(range(16))


def document(**probing: Any) -> dict[str, Any]:
    """A fleet of three VIPs, one of them IPv6, with four TCP targets and one UDP listener that is never probed."""
    servers = ["rs1"]
    return {
        "region": "r",
        "tunnel": {"eip_anycast": "10.3.255.1"},
        "probing": {
            "reserved": ["198.18.0.0/16", "2001:db8:18::/48"],
            "period_s": 1.0,
            "timeout_s": 0.6,
            "probers": [
                {"name": "p1", "sources": ["198.18.1.0/24", "2001:db8:18:1::/64"]},
                {"name": "p2", "sources": ["198.18.2.0/24", "2001:db8:18:2::/64"]},
            ],
            **probing,
        },
        "azs": [{"name": "a"}],
        "clusters": [{"name": "clb", "role": "clb", "az": "a"}, {"name": "hosts", "role": "vswitch", "az": "a"}],
        "nodes": [
            {"name": "ld", "cluster": "clb", "tunnel_address": "10.3.0.1"},
            {"name": "h1", "cluster": "hosts", "tunnel_address": "10.3.1.1"},
        ],
        "real_servers": [{"id": 1, "name": "rs1", "host": "h1", "key": 1, "address": "192.0.2.1"}],
        "vips": [
            {
                "id": 1,
                "name": "v1",
                "public": "203.0.113.1",
                "private": "10.100.0.1",
                "service": "10.4.0.1",
                "cluster": "clb",
                "listeners": [
                    {"port": 80, "real_servers": servers},
                    {"port": 81, "real_servers": servers},
                    {"port": 53, "protocol": "udp", "real_servers": servers},
                ],
            },
            {
                "id": 2,
                "name": "v2",
                "public": "203.0.113.2",
                "private": "10.100.0.2",
                "service": "10.4.0.2",
                "cluster": "clb",
                "listeners": [{"port": 80, "real_servers": servers}],
            },
            {
                "id": 6,
                "name": "v6",
                "public": "2001:db8:113::6",
                "private": "fd00:100::6",
                "service": "10.4.0.6",
                "cluster": "clb",
                "listeners": [{"port": 80, "real_servers": servers}],
            },
        ],
    }


@pytest.fixture
def fleet() -> Fleet:
    return Fleet.model_validate(document())
