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
# What is read again beside the new: the clocks of several warehouse servers differ by less.
MARGIN_US = 500_000
# A tap that has not been reported for so long holds no reading back.
GONE_US = 10_000_000
# Older records say nothing to anyone here; so the engine need not look where they are kept.
OLDEST_US = 86_400_000_000

_FEED, _BATCH, _LOSS = 1, 2, 3
# One statement for all that says what is in: a statement costs the warehouse more than the rows it gives.
_ARRIVED = (
    f"SELECT {_FEED} AS is_a, toUnixTimestamp64Nano(ts) AS at, toString(node) AS who, worker AS part, "
    "toString(role) AS role_name, toString(boot_id) AS boot, toUnixTimestamp64Nano(heartbeat) AS beat, "
    "write_cursor AS up_to, shipped AS safe, lost AS gone, alive AS living, toUnixTimestamp64Micro(landed) AS in_us "
    "FROM feeds WHERE {where} UNION ALL "
    f"SELECT {_BATCH}, toInt64(0), toString(node), worker, '', toString(boot_id), toInt64(0), max(first_seq + rows), "
    "toUInt64(0), toUInt64(0), toUInt8(0), toInt64(0) FROM batches WHERE {where} GROUP BY node, worker, boot_id "
    f"UNION ALL SELECT {_LOSS}, toUnixTimestamp64Nano(ts), toString(node), worker, '', toString(boot_id), toInt64(0), "
    "toUInt64(0), toUInt64(0), count, toUInt8(0), toInt64(0) FROM losses WHERE {where}"
)
_PROBE = 3
_POINT = (
    "SELECT {kind} AS is_a, toString(node) AS who, worker AS part, toString(boot_id) AS boot, seq AS number, "
    "toUnixTimestamp64Nano(ts) AS at, probe_id AS probe, toString({hop}) AS place, toString({why}) AS reason_word, "
    "tcp_flags AS flags, toString(src_addr) AS source, toString(outer_src) AS outer_source, "
    "toString(outer_dst) AS outer_target, vip_id AS vip, server_id AS server, residence_ns AS took, "
    "toInt64(0) AS end, toUInt16(0) AS from_port, toUInt16(0) AS to_port "
    "FROM {table} WHERE {{where}} AND probe_id != 0"
)
_RECORDS = " UNION ALL ".join(
    (
        _POINT.format(kind=TRACE, hop="hop", why="''", table="trace_points"),
        _POINT.format(kind=DROP, hop="hop", why="reason", table="drop_points"),
        f"SELECT {_PROBE}, toString(prober), toUInt16(0), toString(boot_id), seq, toUnixTimestamp64Nano(ts), probe_id, "
        "'', toString(outcome), toUInt8(0), '', '', '', vip_id, toUInt32(0), rtt_ns, toUnixTimestamp64Nano(closed), "
        "src_port, dst_port FROM probes WHERE {where}",
    )
)


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
        # Node -> when its last report landed, by the warehouse's own clock [us since 1970].
        self._heard_us: dict[str, int] = {}

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
        where = f"ts >= fromUnixTimestamp64Nano({int(since_ns)})"
        if self._heard_us:
            since_us = self._since_us()
            # Where the warehouse's clock was set back, what lands now is new whatever its time.
            where = (
                f"landed >= least(fromUnixTimestamp64Micro({since_us}), now64(6) - toIntervalSecond(2)) "
                f"AND ts >= fromUnixTimestamp64Micro({since_us - OLDEST_US})"
            )
        rows = arrived(found := self._query(_ARRIVED.format(where=where)))
        records(self._query(_RECORDS.format(where=where)), rows)
        for row in sorted(found, key=_time):
            if row[0] == _FEED:
                self._heard_us[str(row[2])] = int(row[11])
        return rows

    def _since_us(self) -> int:
        """When the oldest report landed that is the last of its node: what is new has landed after it.

        A collector delivers one batch after the other, and the feeds last: what its next batch brings is stamped
        later than the feeds of this one, however long it takes. GONE_US bounds how long one collector is waited for.
        """
        latest = max(self._heard_us.values())
        self._heard_us = {node: us for node, us in self._heard_us.items() if abs(us - latest) <= GONE_US}
        return min(self._heard_us.values()) - MARGIN_US

    def journey(self, probe_id: int) -> Rows:
        """Everything about one probe."""
        return records(self._query(_RECORDS.format(where=f"probe_id = {int(probe_id)}")), Rows())


def _time(row: Sequence[Any]) -> int:
    return int(row[1])


def arrived(found: Iterable[Sequence[Any]]) -> Rows:
    """The rows of _ARRIVED, reports in the order of their times."""
    rows = Rows()
    for row in sorted(found, key=_time):
        kind, at, node, worker, role, boot, beat, up_to, shipped, lost, alive, _ = row
        who = str(node), int(worker)
        if kind == _FEED:
            rows.feeds.append(
                Feed(
                    int(at),
                    *who,
                    _ROLES.get(str(role), 0),
                    str(boot),
                    int(beat),
                    int(up_to),
                    int(shipped),
                    int(lost),
                    bool(alive),
                )
            )
        elif kind == _BATCH:
            rows.batches.append(Batch(*who, str(boot), int(up_to)))
        else:
            rows.losses.append(Loss(int(at), *who, str(boot), int(lost)))
    return rows


def records(found: Iterable[Sequence[Any]], rows: Rows) -> Rows:
    """`rows` with the points and probes of _RECORDS, as far as the vocabulary has their words.

    A record of a later version, or a torn one, says nothing here.
    """
    for row in found:
        if row[0] == _PROBE:
            if (seen := probe(row)).outcome:
                rows.probes.append(seen)
        elif (place := point(row)).hop and (place.kind == TRACE or place.reason):
            rows.points.append(place)
    return rows


def point(row: Sequence[Any]) -> Point:
    """A row of _RECORDS that is a Trace Point or Drop Point."""
    kind, node, worker, boot, seq, ts, probe_id, hop, reason, flags, src, o_src, o_dst, vip, server, residence, *_ = row
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
    """A row of _RECORDS that is a probe."""
    _, prober, _, boot, seq, ts, probe_id, _, outcome, _, _, _, _, vip, _, rtt, closed, src_port, dst_port = row
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
