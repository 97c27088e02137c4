"""Reads telemetry from the warehouse, and writes there what dashboards need of the analyzer's own state.

One instance serves one thread at a time.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from analyzer.rows import DROP, TRACE, Batch, Feed, Loss, Point, Probe, Rows
from contract.vocabulary import DropReason, Hop, Outcome, Role
from warehouse.client import Connection
from warehouse.settings import WarehouseSettings

_HOPS = {h.name.lower(): int(h) for h in Hop}
_REASONS = {r.name: int(r) for r in DropReason}
_OUTCOMES = {o.name.lower(): int(o) for o in Outcome}
_ROLES = {r.name.lower(): int(r) for r in Role}
_MAPPED = "::ffff:"
# An insert gets its landing time when it begins, and is seen when it ends.
OVERLAP_US = 5_000_000

_POINT = (
    "node, worker, boot_id, seq, toUnixTimestamp64Nano(ts), probe_id, hop, {reason} AS why, tcp_flags, "
    "toString(src_addr), toString(outer_src), toString(outer_dst), vip_id, server_id, residence_ns, {kind} AS is_a"
)
_POINTS = (
    f"SELECT {_POINT.format(reason=repr(''), kind=TRACE)} FROM trace_points WHERE {{where}} UNION ALL "
    f"SELECT {_POINT.format(reason='toString(reason)', kind=DROP)} FROM drop_points WHERE {{where}}"
)
_PROBES = (
    "SELECT prober, boot_id, seq, toUnixTimestamp64Nano(ts), toUnixTimestamp64Nano(closed), probe_id, outcome, "
    "rtt_ns, vip_id, src_port, dst_port FROM probes WHERE {where}"
)
_FEEDS = (
    "SELECT toUnixTimestamp64Nano(ts), node, worker, role, boot_id, toUnixTimestamp64Nano(heartbeat), write_cursor, "
    "shipped, lost, alive, toUnixTimestamp64Micro(landed) FROM feeds WHERE {where} ORDER BY ts"
)
_BATCHES = (
    "SELECT node, worker, boot_id, max(first_seq + rows) FROM batches WHERE {where} GROUP BY node, worker, boot_id"
)
_LOSSES = "SELECT toUnixTimestamp64Nano(ts), node, worker, boot_id, count FROM losses WHERE {where}"


def address(text: str) -> str:
    """An address as the fleet document writes it: IPv4 mapped into IPv6 becomes IPv4, `::` becomes nothing."""
    if text.startswith(_MAPPED):
        return text[len(_MAPPED) :]
    return "" if text == "::" else text


# What the analyzer writes, and of which the row with the highest revision is the present one.
_REVISIONS = "SELECT " + ", ".join(
    f"(SELECT max(revision) FROM {table})" for table in ("incidents", "actions", "dim_nodes", "dim_vips", "dim_servers")
)


class Telemetry:
    """A client of the warehouse. Its methods raise warehouse.client's Unavailable and Refused."""

    def __init__(self, settings: WarehouseSettings) -> None:
        self._connection = Connection(settings)
        self._landed_us = 0  # by the warehouse's own clock

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def insert(self, table: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], token: str) -> None:
        """Insert rows once per token."""
        self._connection.insert(table, list(columns), [list(r) for r in rows], token)

    def highest_revisions(self) -> tuple[int, int]:
        """The highest revision of any row that an analyzer has written, and of one that names things of the fleet."""
        found = [int(x) for x in self._query(_REVISIONS)[0]]
        return max(found), max(found[2:])

    def _query(self, sql: str) -> list[tuple[Any, ...]]:
        return self._connection.query(sql)

    def read(self, since_ns: int) -> Rows:
        """What has landed of coloured packets since the last call, and some of it again.

        The first call goes by the time of the records, `since_ns`. What says that records have landed is read before
        the records, so that it never promises too much.
        """
        since = f"ts >= fromUnixTimestamp64Nano({int(since_ns)})"
        if self._landed_us:
            since = f"landed >= fromUnixTimestamp64Micro({self._landed_us - OVERLAP_US})"
        batches = [Batch(str(n), int(w), str(b), int(s)) for n, w, b, s in self._query(_BATCHES.format(where=since))]
        reports = self._query(_FEEDS.format(where=since))
        feeds = [feed(r) for r in reports]
        losses = [
            Loss(int(t), str(n), int(w), str(b), int(c)) for t, n, w, b, c in self._query(_LOSSES.format(where=since))
        ]
        points = known_points(self._query(_POINTS.format(where=f"{since} AND probe_id != 0")))
        probes = known_probes(self._query(_PROBES.format(where=since)))
        self._landed_us = max([self._landed_us, *(int(r[-1]) for r in reports)])
        return Rows(batches, feeds, points, probes, losses)

    def journey(self, probe_id: int) -> Rows:
        """Everything about one probe."""
        where = f"probe_id = {int(probe_id)}"
        return Rows(
            points=known_points(self._query(_POINTS.format(where=where))),
            probes=known_probes(self._query(_PROBES.format(where=where))),
        )


def known_points(rows: Iterable[Sequence[Any]]) -> list[Point]:
    """Those whose hop and reason the vocabulary has: a record of a later version, or a torn one, says nothing here."""
    return [p for p in map(point, rows) if p.hop and (p.kind == TRACE or p.reason)]


def known_probes(rows: Iterable[Sequence[Any]]) -> list[Probe]:
    """Those whose outcome the vocabulary has."""
    return [p for p in map(probe, rows) if p.outcome]


def point(row: Sequence[Any]) -> Point:
    """A row of _POINTS."""
    node, worker, boot, seq, ts, probe_id, hop, reason, flags, src, o_src, o_dst, vip, server, residence, kind = row
    return Point(
        str(node),
        int(worker),
        str(boot),
        int(seq),
        int(ts),
        int(probe_id),
        int(kind),
        _HOPS.get(str(hop), 0),
        _REASONS.get(str(reason), 0),
        int(flags),
        address(str(src)),
        address(str(o_src)),
        address(str(o_dst)),
        int(vip),
        int(server),
        int(residence),
    )


def probe(row: Sequence[Any]) -> Probe:
    """A row of _PROBES."""
    prober, boot, seq, ts, closed, probe_id, outcome, rtt, vip, src_port, dst_port = row
    return Probe(
        str(prober),
        str(boot),
        int(seq),
        int(ts),
        int(closed),
        int(probe_id),
        _OUTCOMES.get(str(outcome), 0),
        int(rtt),
        int(vip),
        int(src_port),
        int(dst_port),
    )


def feed(row: Sequence[Any]) -> Feed:
    """A row of _FEEDS."""
    ts, node, worker, role, boot, heartbeat, cursor, shipped, lost, alive, _ = row
    return Feed(
        int(ts),
        str(node),
        int(worker),
        _ROLES.get(str(role), 0),
        str(boot),
        int(heartbeat),
        int(cursor),
        int(shipped),
        int(lost),
        bool(alive),
    )
