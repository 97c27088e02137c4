"""The panels about nodes and their taps, on the fleet dashboard."""

from __future__ import annotations

from grafana_foundation_sdk.builders import stat, statetimeline, table, timeseries

from dashboards import links
from dashboards.counts import QUANTILES, counts
from dashboards.panels import (
    BAD,
    CALM,
    GOOD,
    NEUTRAL,
    ODD,
    OF,
    RATE,
    WARN,
    Column,
    number,
    rows,
    series,
    states,
    thresholds,
    when,
)
from dashboards.sql import STEP, chosen_node, in_steps, last_minute, lines, step

# What a node did in a step; higher is worse.
PASSING, IDLE, QUIET, UNSEEN, DROPPING, DOWN = 0, 1, 2, 3, 4, 5
CODES = {
    PASSING: ("passing", GOOD),
    IDLE: ("idle", CALM),
    QUIET: ("quiet", ODD),
    UNSEEN: ("no tap", NEUTRAL),
    DROPPING: ("dropping", WARN),
    DOWN: ("down", BAD),
}
# A node is empty so long after its VIPs were asked to move elsewhere [s].
EMPTIES_S = 120
# From this share of dropped packets on a node counts as dropping.
DROPPING_FROM = 0.05

# (node, step, passed, dropped, beats) of each step in which the collector looked at the node: so nothing passed is
# zero, and a node that nobody looked at has no row.
_SEEN = f"""
SELECT node, step, sum(passed) AS passed, sum(dropped) AS dropped, max(looked) AS looked, min(beats) AS beats FROM (
    SELECT toString(node) AS node, step, n AS passed, 0 AS dropped, 0 AS looked, 1 AS beats
    FROM ({counts("trace_points", ["node"], chosen_node("node"))})
    UNION ALL
    SELECT toString(node) AS node, step, 0, n, 0, 1 FROM ({counts("drop_points", ["node"], chosen_node("node"))})
    UNION ALL
    SELECT toString(node) AS node, {step("ts")} AS step, 0, 0, 1, min(alive)
    FROM feeds WHERE {in_steps("ts")} AND role != 'prober' AND {chosen_node("node")} GROUP BY node, step
) GROUP BY node, step HAVING looked OR passed + dropped > 0
"""
# The same, and a row for each node of the fleet document in each step in which the collector looked at any: beats is 2
# where it did not look at that one.
_EXPECTED = f"""
SELECT node, step, sum(passed) AS passed, sum(dropped) AS dropped, min(beats) AS beats FROM (
    SELECT node, step, passed, dropped, beats FROM ({_SEEN.strip()})
    UNION ALL
    SELECT node, step, 0, 0, 2 FROM (SELECT toString(name) AS node FROM nodes WHERE {chosen_node("name")}) AS n,
    (SELECT DISTINCT {step("ts")} AS step FROM feeds WHERE {in_steps("ts")}) AS s
) GROUP BY node, step
"""
# So many standard deviations of a count (its root) from the median are no chance.
FAR = 4


def alive(minute: str) -> stat.Panel:
    """How many nodes are alive, of how many."""
    return number(
        "Nodes alive",
        f"Chosen nodes of the fleet document whose processes beat, all their workers; passing or not. {minute}",
        f"""
        WITH (SELECT count() FROM nodes WHERE {chosen_node("name")}) AS expected
        SELECT if(seen = 0, NULL, concat(toString(beating), ' of ', toString(greatest(expected, seen)))) AS nodes FROM (
            SELECT countIf(beats = 1) AS beating, count() AS seen FROM (
                SELECT node, min(beats) AS beats FROM (
                    SELECT node, worker, argMax(alive, ts) AS beats FROM feeds
                    WHERE {last_minute("ts")} AND role != 'prober' AND {chosen_node("node")} GROUP BY node, worker)
                GROUP BY node))
        """,
        "string",
        mappings=OF,
    )


def tapped(minute: str) -> stat.Panel:
    """How many taps are alive, of how many."""
    return number(
        "Taps alive",
        "Taps (one per worker or prober) whose writer was alive when the collector last looked, of those that it knew "
        f"within an hour before. {minute}",
        f"""
        SELECT if(max(seen) = 0, NULL, concat(toString(countIf(seen AND beats = 1)), ' of ', toString(count()))) AS taps
        FROM (
            SELECT node, worker, max({last_minute("ts")}) AS seen, argMax(alive, ts) AS beats FROM feeds
            WHERE ts >= $__toTime - INTERVAL 1 HOUR AND ts < $__toTime - INTERVAL 5 SECOND GROUP BY node, worker)
        """,
        "string",
        mappings=OF,
    )


def lost(minute: str) -> stat.Panel:
    """How many records are known to be lost."""
    return number(
        "Records lost",
        "Records that the collector knows to be lost (full tap, torn spool), never guessed; unknown while it looks at "
        f"no tap. {minute}",
        f"""
        SELECT if(lost > 0 OR looked > 0, toNullable(lost), NULL) AS lost FROM
        (SELECT sum(count) AS lost FROM losses WHERE {last_minute("ts")}) AS l,
        (SELECT count() AS looked FROM feeds WHERE {last_minute("ts")}) AS f
        """,
        "short",
        thresholds((0, GOOD), (1, WARN)),
    )


def panels() -> list[statetimeline.Panel | timeseries.Panel]:
    """What nodes did, over time."""
    return [timeline(), unusual(), drops(), residence()]


def timeline() -> statetimeline.Panel:
    """What state each node was in."""
    return states(
        "What nodes do",
        "Passing; idle (beats, had nothing to pass yet, or the VIPs of its cluster were moved); quiet (beats, passed "
        "something before, nothing now, and no migration says why); no tap (nobody looks at it, though at others); "
        "dropping (5 % of its packets or more); down (its process did not beat when it was looked at last); a gap "
        "where nobody looked at any. The 20 chosen nodes that were worst for longest.",
        lines(
            "node",
            f"""
            SELECT name, step, multiIf(beats = 0, {DOWN}, dropped > {DROPPING_FROM} * (passed + dropped), {DROPPING},
            passed > 0, {PASSING}, beats = 2, if(looks > 0 AND beat = 0, {DOWN}, {UNSEEN}),
            passing > 0 AND NOT arrayExists(at -> at < (step + 1) * {STEP}
            AND passing * {STEP} <= at + {EMPTIES_S}, moves), {QUIET}, {IDLE}) AS value
            FROM (SELECT node AS name, step, passed, dropped, beats,
            maxIf(step, passed > 0) OVER (PARTITION BY node ORDER BY step) AS passing,
            argMaxIf(beats, step, beats != 2) OVER (PARTITION BY node ORDER BY step) AS beat,
            countIf(beats != 2) OVER (PARTITION BY node ORDER BY step) AS looks
            FROM ({_EXPECTED.strip()})) AS e
            LEFT JOIN (
                SELECT toString(n.name) AS node, groupArray(toUnixTimestamp(ts)) AS moves
                FROM actions AS a FINAL INNER JOIN nodes AS n ON n.cluster = a.cluster
                WHERE state = 'done' AND ts <= $__toTime_ms GROUP BY node) AS m ON m.node = e.name
            """,
            f"countIf(value >= {UNSEEN}) * 10 + countIf(value = {QUIET}) + max(value)",
            top=20,
        ),
        "node",
        CODES,
        links={"this node": links.fleet("node")},
    )


def unusual() -> timeseries.Panel:
    """Which nodes pass much more or less than usual."""
    return series(
        "Coloured packets against the node's own median",
        "1 is the median of what the node passed in this range; the 8 chosen nodes that went furthest, by more than "
        "chance explains. A fall to 0 while probes go silent is a crash; a neighbour then rises.",
        lines(
            "node",
            f"""
            SELECT node AS name, step, passed / usual AS value, abs(passed - usual) / sqrt(usual) AS far FROM (
                SELECT node, step, passed, medianIf(passed, passed > 0) OVER (PARTITION BY node) AS usual
                FROM ({_SEEN.strip()}))
            WHERE usual > 0
            """,
            f"maxIf(far, far >= {FAR})",
            keep="worst > 0",
        ),
        "none",
        label="node",
        finest="1m",
        nothing="no node is far from its median, as far as is known",
        low=True,
        links={"this node": links.fleet("node")},
    )


def drops() -> timeseries.Panel:
    """Why packets die, and where."""
    return series(
        "Drop Points by node and reason",
        "Packets that died per second at the chosen nodes; the 8 pairs with the most. A surge at one node is jitter.",
        lines(
            "what",
            f"""
            SELECT concat(node, ' ', reason) AS name, step, sum(n) / {STEP} AS value
            FROM ({counts("drop_points", ["node", "reason"], chosen_node("node"))}) GROUP BY name, step
            """,
            "sum(value)",
        ),
        RATE,
        label="what",
        bars=True,
        shades=BAD,
    )


def residence() -> timeseries.Panel:
    """How long packets stay in nodes."""
    return series(
        "Residence time by node, 99th percentile",
        "From a coloured packet's arrival at the node to its departure; the 8 chosen nodes with the longest.",
        lines(
            "node",
            f"""
            SELECT node AS name, step, {QUANTILES}[2] / 1e9 AS value
            FROM ({counts("trace_points", ["node"], chosen_node("node"), digest=True)}) GROUP BY name, step
            """,
            "max(value)",
        ),
        "s",
        label="node",
        finest="1m",
        links={"this node": links.fleet("node")},
    )


def taps() -> table.Panel:
    """Each tap."""
    return rows(
        "Taps",
        "Each tap as the collector saw it last in this range, the worst first (100 at most). The heartbeat's age is at "
        "that moment.",
        f"""
        SELECT node, worker, argMax(role, ts) AS kind, if(argMax(alive, ts) = 1, 'alive', 'dead') AS writer,
        argMax(dateDiff('millisecond', heartbeat, ts), ts) / 1000 AS heartbeat_age,
        argMax(toInt64(write_cursor) - toInt64(shipped), ts) AS waiting, argMax(lost, ts) AS lost,
        argMax(suppressed, ts) AS not_sampled, max(ts) AS looked
        FROM feeds WHERE $__timeFilter_ms(ts) AND (role = 'prober' OR {chosen_node("node")}) GROUP BY node, worker
        ORDER BY writer = 'alive', lost > 0 DESC, heartbeat_age DESC, node, worker LIMIT 100
        """,
        {
            "node": links.node(),
            "worker": Column(width=80),
            "kind": Column(width=90),
            "writer": Column(width=90, words={"alive": GOOD, "dead": BAD}),
            "heartbeat_age": Column(title="heartbeat", width=110, unit="s"),
            "waiting": Column(title="not yet in warehouse", width=180, unit="short"),
            "lost": Column(title="lost in tap", width=110, unit="short"),
            "not_sampled": Column(title="not sampled", width=120, unit="short"),
            "looked": when("looked at", fill=True),
        },
        nothing="the collector looked at no tap in this time range",
    )
