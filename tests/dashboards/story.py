"""What happened in the region that the dashboards' tests look at, written as the parts of tgw would have written it.

Two AZs, a CLB cluster of two LDs and one of one, a buffer cluster, an EIP node, a host, a prober, and three VIPs with a
probe to each every 5 s. All times are seconds before now.
"""

from __future__ import annotations

from typing import Any

from warehouse.client import Connection

SECOND = 1_000_000_000
BEGAN = 900  # records since
HOLE = (480, 420)  # nothing at all was collected
DROPS = (700, 650, 600, 550)  # single drops at ld-b1, in a healthy region
DIED = 260  # ld-a1 is killed: vip-01's probes end there
NOTICED = 20  # so long after that the collector finds that it does not beat
RETIRED = 120  # its tap is given up: nobody looks at it any more
FAILED = 230  # the migration failed
MOVED = 60  # vip-01 is answered again, through ld-a2
LOST_AT = 30  # a full tap
OLD = 3 * 86400  # another incident, long closed

NODES = {
    "eip-1": ("eip-1", "eip", "az-a"),
    "ld-a1": ("clb-a", "clb", "az-a"),
    "ld-a2": ("clb-a", "clb", "az-a"),
    "ld-b1": ("clb-b", "clb", "az-b"),
    "ld-x1": ("buf-1", "clb", "az-b"),
    "host-1": ("hosts", "vswitch", "az-a"),
}
VIPS = {1: ("vip-01", "clb-a"), 2: ("vip-02", "clb-a"), 3: ("vip-03", "clb-b")}
LD = {1: "ld-a1", 2: "ld-a2", 3: "ld-b1"}
HOPS = [("eip_in", 2), ("clb_in", 2), ("vsw_in", 2), ("vsw_out", 18), ("clb_out", 18), ("eip_out", 18)]
FIRST_PROBE = 0x8101_2710_0000_0000  # more than 2^63: a number that a double cannot hold
INCIDENT, CLOSED = "inc-1", "inc-0"
SUMMARY = (
    "ld-a1 stopped passing probes of 1 of 3 VIPs while its neighbours go on: its Trace Points collapsed from 12.0 to "
    "0.0 per second, 40 probes ended there, runner-up path eip-1 to clb-a with a margin of 31.5"
)
RAIL = "rail max_concurrent_migrations: 1 runs already, in the same availability zone, and a person has to decide"


def number(vip: int, ago: int) -> int:
    """The number of the probe to a VIP that many seconds ago."""
    return FIRST_PROBE + vip * 100_000 + (BEGAN - ago)


def silent(vip: int, ago: int) -> bool:
    """Whether that probe is not answered."""
    return vip == 1 and MOVED < ago <= DIED


def collected(ago: int) -> bool:
    """Whether anything was collected then."""
    return not HOLE[1] <= ago < HOLE[0]


def mapped(address: str) -> str:
    return f"::ffff:{address}"


def tell(writer: Connection, now_ns: int) -> None:
    """Write it all down."""
    _records(writer, now_ns)
    _feeds(writer, now_ns)
    _incidents(writer, now_ns)
    _names(writer)


def _records(writer: Connection, now_ns: int) -> None:
    probes: list[list[Any]] = []
    points: list[list[Any]] = []
    for ago in range(BEGAN, 0, -5):
        for vip in VIPS:
            if not collected(ago):
                continue
            at, identity, dead = now_ns - ago * SECOND + vip, number(vip, ago), silent(vip, ago)
            ld = "ld-a2" if vip == 1 and ago <= MOVED else LD[vip]
            head = [at, "prober-1", "ab", at + 2 * SECOND, ago * 10 + vip, identity, "silent" if dead else "answered"]
            addresses = [mapped("198.18.1.1"), mapped(f"203.0.113.{vip}"), 10_000 + vip, 80]
            probes.append([*head, 0 if dead else 2_000_000, *addresses, vip])
            for i, (hop, flags) in enumerate(HOPS[:1] if dead else HOPS, 1):
                node = {"e": "eip-1", "c": ld, "v": "host-1"}[hop[0]]
                tunnel = [mapped("10.3.0.1"), mapped("10.3.0.2"), vip, 1, 0]
                head = [at + i * 100_000, node, "cd", ago * 100 + vip * 10 + i, identity, hop, "forwarded", flags]
                points.append([*head, "request" if flags == 2 else "reply", 20_000, *tunnel])
    columns = ["ts", "prober", "boot_id", "closed", "seq", "probe_id", "outcome", "rtt_ns", "src_addr", "dst_addr"]
    writer.insert("probes", [*columns, "src_port", "dst_port", "vip_id"], probes)
    columns = ["ts", "node", "boot_id", "seq", "probe_id", "hop", "verdict", "tcp_flags", "direction", "residence_ns"]
    columns += ["outer_src", "outer_dst", "vip_id", "server_id", "worker"]
    writer.insert("trace_points", columns, points)
    # Client traffic has no probe: its Drop Points have the number 0.
    died = [
        [now_ns - ago * SECOND, "ld-b1", "cd", ago, 0, "clb_in", "dropped", 2, "request", 20_000, "::", "::", 3, 0, 0]
        for ago in DROPS
    ]
    writer.insert("drop_points", [*columns, "reason"], [[*row, "NO_ROUTE"] for row in died])


def _feeds(writer: Connection, now_ns: int) -> None:
    feeds: list[list[Any]] = []
    for ago in range(BEGAN, 0, -1):
        if not collected(ago):
            continue
        at = now_ns - ago * SECOND
        for name, (_, role, _) in {**NODES, "prober-1": ("", "prober", "")}.items():
            dead = name == "ld-a1" and ago < DIED - NOTICED
            if name == "ld-a1" and ago < RETIRED:
                continue
            beat = now_ns - DIED * SECOND if dead else at - 50_000_000
            feeds.append([at, name, "cd", 0, role, beat, 1000 - ago, 1000 - ago, 3 if name == "ld-b1" else 0, not dead])
    columns = ["ts", "node", "boot_id", "worker", "role", "heartbeat", "write_cursor", "shipped", "lost", "alive"]
    writer.insert("feeds", columns, feeds)
    columns = ["ts", "node", "boot_id", "worker", "first_seq", "count", "cause"]
    writer.insert("losses", columns, [[now_ns - LOST_AT * SECOND, "ld-b1", "cd", 0, 1, 3, "ring_full"]])


def _incidents(writer: Connection, now_ns: int) -> None:
    def ago(seconds: int) -> int:
        return now_ns - seconds * SECOND

    columns = ["id", "kind", "subject", "state", "severity", "named_nodes", "vips", "summary", "opened", "closed"]
    writer.insert(
        "incidents",
        [*columns, "revision"],
        [
            [INCIDENT, "crash", "ld-a1", "mitigated", "warning", ["ld-a1"], [1], SUMMARY, ago(DIED - 10), None, 5],
            [CLOSED, "jitter", "ld-b1", "closed", "critical", ["ld-b1"], [3], "it drops", ago(OLD), ago(OLD - 90), 2],
        ],
    )
    writer.insert(
        "incident_events",
        ["incident_id", "seq", "ts", "kind", "text"],
        [
            [INCIDENT, 1, ago(DIED - 10), "opened", SUMMARY],
            [INCIDENT, 2, ago(FAILED), "refused", RAIL],
            [CLOSED, 3, ago(OLD), "opened", "it drops"],
        ],
    )
    writer.insert(
        "actions",
        ["id", "incident_id", "ts", "kind", "cluster", "state", "detail", "revision"],
        [["mig-1", INCIDENT, ago(FAILED), "dispersed_migration", "clb-a", "failed", RAIL, 1]],
    )


def _names(writer: Connection) -> None:
    writer.insert(
        "dim_nodes",
        ["name", "cluster", "role", "az", "tunnel_address", "epoch", "revision"],
        [[name, *where, mapped("10.3.0.9"), 1, 1] for name, where in NODES.items()],
    )
    addresses = [mapped("203.0.113.1"), mapped("10.100.0.1"), mapped("10.4.0.1")]
    columns = ["id", "name", "home", "public", "private", "service", "epoch", "revision"]
    writer.insert("dim_vips", columns, [[i, *where, *addresses, 1, 1] for i, where in VIPS.items()])
    columns = ["id", "name", "host", "address", "epoch", "revision"]
    writer.insert("dim_servers", columns, [[1, "rs-1", "host-1", mapped("10.5.0.1"), 1, 1]])
