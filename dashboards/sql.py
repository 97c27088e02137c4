"""Pieces of SQL that panels share: steps of time, gaps that stay gaps, the last minute, what the variables choose.

A chart's point covers one step of `$__interval_s` seconds. Steps begin at multiples of their length, only whole ones
are drawn, and none that ended less than SETTLED_S ago: what came back for its probes is not all known yet. A step for
which nothing is known is NULL, so that a line breaks there; zero is drawn only where it is known to be zero.
"""

from __future__ import annotations

from dashboards.source import ALL, among, names

# A silent probe is known once its time is up (2 s), its record is in the warehouse up to 2 s later.
SETTLED_S = 5
STEP = "$__interval_s"
FIRST_STEP = f"toUInt32(intDiv(toUnixTimestamp($__fromTime) + {STEP} - 1, {STEP}))"
END_STEP = f"toUInt32(intDiv(least(toUnixTimestamp($__toTime), toUnixTimestamp(now()) - {SETTLED_S}), {STEP}))"
STEPS = f"range({FIRST_STEP}, greatest({FIRST_STEP}, {END_STEP}))"


def in_steps(column: str) -> str:
    """A condition on a time column: within the steps that are drawn."""
    return f"{column} >= toDateTime({FIRST_STEP} * {STEP}) AND {column} < toDateTime({END_STEP} * {STEP})"


def step(column: str) -> str:
    """The number of the step that a time lies in."""
    return f"toUInt32(intDiv(toUnixTimestamp({column}), {STEP}))"


def lines(label: str, points: str, worst: str, top: int = 8, keep: str = "isFinite(worst)") -> str:
    """SQL for a chart with a line for each of the `top` names for which `worst` is highest.

    `points`: a query that gives (name, step, value), one row each; value may be NULL. `worst`: an aggregate of them,
    and of any other columns; `keep`: a condition on it, without which a name is not drawn.
    """
    return f"""
    SELECT toDateTime(step * {STEP}, 'UTC') AS time, name AS {label}, known[step] AS value
    FROM (
    SELECT name, known, arrayJoin({STEPS}) AS step FROM (
    SELECT toString(name) AS name, {worst} AS worst,
    CAST(groupArray((step, toFloat64(value))), 'Map(UInt32, Nullable(Float64))') AS known
    FROM ({points.strip()}) GROUP BY name HAVING {keep} ORDER BY worst DESC, name LIMIT {top}))
    ORDER BY time, {label}
    """


def wide(columns: dict[str, str], source: str) -> str:
    """SQL for a chart with the same few lines always: a column each, NULL in steps without a row.

    `columns`: name -> expression over the rows of a step; `source`: a query that gives rows with their `step`.
    """
    values = ", ".join(f"toNullable(toFloat64({expression})) AS {name}" for name, expression in columns.items())
    found = ", ".join(f"found.{name} AS {name}" for name in columns)
    return f"""
    SELECT toDateTime(grid.step * {STEP}, 'UTC') AS time, {found}
    FROM (SELECT arrayJoin({STEPS}) AS step) AS grid
    LEFT JOIN (SELECT step, {values} FROM ({source.strip()}) GROUP BY step) AS found ON found.step = grid.step
    ORDER BY time
    """


def last_minute(column: str) -> str:
    """A condition on a time column: the last minute of the range of which everything is known."""
    first, end = (f"$__toTime - INTERVAL {s} SECOND" for s in (60 + SETTLED_S, SETTLED_S))
    return f"{column} >= {first} AND {column} < {end}"


def _all(*variables: str) -> str:
    return " AND ".join(f"has({names(v)}, '{ALL}')" for v in variables)


def chosen_node(column: str) -> str:
    """A condition on a node's name: the variables az, role, cluster and node choose it."""
    return (
        f"(({_all('az', 'role', 'cluster', 'node')}) OR {column} IN (SELECT name FROM nodes WHERE {among('az', 'az')} "
        f"AND {among('role', 'role')} AND {among('cluster', 'cluster')} AND {among('name', 'node')}))"
    )


def chosen_vip(column: str) -> str:
    """A condition on a VIP's id: the variables az, cluster and vip choose it, by its home cluster."""
    homes = f"SELECT cluster FROM nodes WHERE {among('az', 'az')} AND {among('cluster', 'cluster')}"
    return (
        f"(({_all('az', 'cluster', 'vip')}) OR {column} IN (SELECT id FROM vips WHERE {among('name', 'vip')} "
        f"AND home IN ({homes})))"
    )


# How long before and after an incident its dashboard shows [s].
AROUND_S = 600


def incident_range(opened: str = "opened", closed: str = "closed") -> str:
    """Columns from_ms and to_ms: what a link to an incident's dashboard shows. `to_ms` of an open one is "now"."""
    return (
        f"toString(toUnixTimestamp64Milli(toDateTime64({opened}, 3)) - {AROUND_S * 1000}) AS from_ms, "
        f"if({closed} IS NULL, 'now', toString(toUnixTimestamp64Milli(toDateTime64(assumeNotNull({closed}), 3)) + "
        f"{AROUND_S * 1000})) AS to_ms"
    )


# VIP names by id, for SQL that has ids alone.
VIP_NAMES = "(SELECT CAST(groupArray((id, toString(name))), 'Map(UInt32, String)') FROM vips)"


def vip_words(ids: str, names_map: str, shown: int = 3) -> str:
    """A sentence like "20 VIPs: vip-01, vip-02, vip-03, ..." for an array of VIP ids."""
    some = f"arrayMap(v -> if({names_map}[v] = '', toString(v), {names_map}[v]), arraySlice({ids}, 1, {shown}))"
    return (
        f"if(empty({ids}), 'no VIP', concat(toString(length({ids})), if(length({ids}) = 1, ' VIP: ', ' VIPs: '), "
        f"arrayStringConcat({some}, ', '), if(length({ids}) > {shown}, ', ...', '')))"
    )
