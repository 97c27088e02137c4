"""The named questions that people and commands ask of a warehouse. Values go in as parameters, never as text.

Times are ns since 1970; addresses are text as ClickHouse writes them (IPv4 as ::ffff:a.b.c.d).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

from warehouse.client import Connection

Row = TypeVar("Row")


@dataclass(frozen=True, slots=True)
class Query:
    """SQL with ClickHouse's parameters, {name:Type}."""

    name: str
    sql: str


class Step(NamedTuple):
    """One thing that happened to a probe. `hop`: of a point; "" where the prober speaks. `what`: point or outcome."""

    ts_ns: int
    node: str
    hop: str
    what: str
    reason: str
    worker: int
    residence_ns: int
    outer_src: str
    outer_dst: str
    vip_id: int
    server_id: int


class ProbeSeen(NamedTuple):
    """One probe as its prober saw it."""

    ts_ns: int
    closed_ns: int
    prober: str
    probe_id: int
    vip_id: int
    outcome: str
    rtt_ns: int
    src_port: int
    dst_port: int


class Share(NamedTuple):
    """How many of something a node has. `name`: hop or drop reason."""

    node: str
    name: str
    points: int


class FeedSeen(NamedTuple):
    """The last word of a tap's feed."""

    node: str
    worker: int
    role: str
    boot_id: str
    ts_ns: int
    heartbeat_ns: int
    write_cursor: int
    shipped: int
    lost: int
    alive: bool


class IncidentSeen(NamedTuple):
    """One incident as it stands. `closed_ns`: 0 while it is open."""

    id: str
    kind: str
    subject: str
    state: str
    severity: str
    summary: str
    named_nodes: Sequence[str]
    opened_ns: int
    closed_ns: int


JOURNEY = Query(
    "journey",
    """
    SELECT * FROM (
    SELECT toUnixTimestamp64Nano(ts) AS at, node, hop, 'forwarded' AS what, '' AS why, worker, residence_ns,
        toString(outer_src), toString(outer_dst), vip_id, server_id
    FROM trace_points WHERE probe_id = {probe_id:UInt64} AND ts BETWEEN {first:DateTime64(9)} AND {last:DateTime64(9)}
    UNION ALL
    SELECT toUnixTimestamp64Nano(ts), node, hop, 'dropped', reason, worker, residence_ns,
        toString(outer_src), toString(outer_dst), vip_id, server_id
    FROM drop_points WHERE probe_id = {probe_id:UInt64} AND ts BETWEEN {first:DateTime64(9)} AND {last:DateTime64(9)}
    UNION ALL
    SELECT toUnixTimestamp64Nano(ts), prober, '', 'sent', '', 0, 0, '', '', vip_id, 0
    FROM probes WHERE probe_id = {probe_id:UInt64} AND ts BETWEEN {first:DateTime64(9)} AND {last:DateTime64(9)}
    UNION ALL
    SELECT toUnixTimestamp64Nano(closed), prober, '', outcome, '', 0, 0, '', '', vip_id, 0
    FROM probes WHERE probe_id = {probe_id:UInt64} AND ts BETWEEN {first:DateTime64(9)} AND {last:DateTime64(9)}
    ) ORDER BY at, what = 'sent' DESC
    """,
)
RECENT_PROBES = Query(
    "recent probes",
    """
    SELECT toUnixTimestamp64Nano(ts), toUnixTimestamp64Nano(closed), prober, probe_id, vip_id, outcome, rtt_ns,
        src_port, dst_port
    FROM probes
    WHERE ts >= {since:DateTime64(9)} AND ({vip_id:UInt32} = 0 OR vip_id = {vip_id:UInt32})
        AND ({outcome:String} = '' OR outcome = {outcome:String})
    ORDER BY ts DESC LIMIT {limit:UInt32}
    """,
)
TRACE_POINTS = Query(
    "Trace Points by node and hop",
    """
    SELECT node, hop, sum(points) FROM trace_points_1s
    WHERE second >= {since:DateTime64(9)} AND second < {until:DateTime64(9)} GROUP BY node, hop ORDER BY node, hop
    """,
)
DROP_POINTS = Query(
    "Drop Points by node and reason",
    """
    SELECT node, reason, sum(points) AS n FROM drop_points_1s
    WHERE second >= {since:DateTime64(9)} AND second < {until:DateTime64(9)} GROUP BY node, reason ORDER BY n DESC
    """,
)
FEEDS = Query(
    "latest feeds",
    """
    SELECT node, worker, argMax(role, ts), argMax(boot_id, ts), toUnixTimestamp64Nano(max(ts)),
        toUnixTimestamp64Nano(argMax(heartbeat, ts)), argMax(write_cursor, ts), argMax(shipped, ts), argMax(lost, ts),
        argMax(alive, ts)
    FROM feeds WHERE ts >= {since:DateTime64(9)} GROUP BY node, worker ORDER BY node, worker
    """,
)
INCIDENTS = Query(
    "incidents",
    """
    SELECT id, kind, subject, state, severity, summary, named_nodes, toUnixTimestamp64Nano(opened),
        ifNull(toUnixTimestamp64Nano(closed), 0)
    FROM incidents FINAL WHERE opened >= {since:DateTime64(9)} ORDER BY opened DESC LIMIT {limit:UInt32}
    """,
)
ALL = (JOURNEY, RECENT_PROBES, TRACE_POINTS, DROP_POINTS, FEEDS, INCIDENTS)
# A journey lasts milliseconds; a probe's name may come again after an hour or so.
_ALWAYS = (0, 2**63 - 1)


def moment(ns: int) -> str:
    """A parameter of type DateTime64(9)."""
    return f"{ns // 1_000_000_000}.{ns % 1_000_000_000:09}"


class Queries:
    """The questions over one connection. Every method: warehouse.client.Unavailable, Refused."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def _ask(self, query: Query, row: Callable[..., Row], **parameters: Any) -> list[Row]:
        return [row(*values) for values in self._connection.query(query.sql, parameters)]

    def journey(self, probe_id: int, first_ns: int = _ALWAYS[0], last_ns: int = _ALWAYS[1]) -> list[Step]:
        """What happened to a probe between two times, in order of time."""
        return self._ask(JOURNEY, Step, probe_id=probe_id, first=moment(first_ns), last=moment(last_ns))

    def recent_probes(self, since_ns: int, vip_id: int = 0, outcome: str = "", limit: int = 100) -> list[ProbeSeen]:
        """Probes sent since then, newest first; of one VIP and one outcome when these are given."""
        return self._ask(RECENT_PROBES, ProbeSeen, since=moment(since_ns), vip_id=vip_id, outcome=outcome, limit=limit)

    def trace_points(self, since_ns: int, until_ns: int) -> list[Share]:
        """Trace Points by node and hop in whole seconds."""
        return self._ask(TRACE_POINTS, Share, since=moment(since_ns), until=moment(until_ns))

    def drop_points(self, since_ns: int, until_ns: int) -> list[Share]:
        """Drop Points by node and reason in whole seconds, the most first."""
        return self._ask(DROP_POINTS, Share, since=moment(since_ns), until=moment(until_ns))

    def feeds(self, since_ns: int) -> list[FeedSeen]:
        """The last report of every tap that has reported since then."""
        return [f._replace(alive=bool(f.alive)) for f in self._ask(FEEDS, FeedSeen, since=moment(since_ns))]

    def incidents(self, since_ns: int = 0, limit: int = 100) -> list[IncidentSeen]:
        """Incidents opened since then, newest first."""
        return self._ask(INCIDENTS, IncidentSeen, since=moment(since_ns), limit=limit)
