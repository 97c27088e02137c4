"""Per-second roll-ups for long ranges: probes by VIP and outcome, Trace Points and Drop Points by node."""

_NAME = "LowCardinality(String)"
_ROLLUPS = {
    "probes_by_second": (
        "probes",
        f"second DateTime('UTC'), outcome {_NAME}, prober {_NAME}, vip_id UInt32, "
        "probes SimpleAggregateFunction(sum, UInt64), rtt AggregateFunction(quantilesTDigest(0.5, 0.99), UInt32)",
        "outcome, prober, vip_id, second",
        "toDateTime(ts, 'UTC') AS second, outcome, prober, vip_id, count() AS probes, "
        "quantilesTDigestState(0.5, 0.99)(rtt_ns) AS rtt",
        "second, outcome, prober, vip_id",
    ),
    "trace_points_by_second": (
        "trace_points",
        f"second DateTime('UTC'), node {_NAME}, hop {_NAME}, points SimpleAggregateFunction(sum, UInt64), "
        "residence AggregateFunction(quantilesTDigest(0.5, 0.99), UInt32)",
        "hop, node, second",
        "toDateTime(ts, 'UTC') AS second, node, hop, count() AS points, "
        "quantilesTDigestState(0.5, 0.99)(residence_ns) AS residence",
        "second, node, hop",
    ),
    "drop_points_by_second": (
        "drop_points",
        f"second DateTime('UTC'), node {_NAME}, reason {_NAME}, coloured UInt8, "
        "points SimpleAggregateFunction(sum, UInt64)",
        "reason, node, coloured, second",
        "toDateTime(ts, 'UTC') AS second, node, reason, toUInt8(probe_id != 0) AS coloured, count() AS points",
        "second, node, reason, coloured",
    ),
}

UP = [
    statement
    for name, (source, columns, order, select, group) in _ROLLUPS.items()
    for statement in (
        f"CREATE TABLE IF NOT EXISTS {{db}}.{name} {{on_cluster}} ({columns}) ENGINE = {{aggregating}} "
        f"PARTITION BY toYYYYMM(second) ORDER BY ({order})",
        f"CREATE MATERIALIZED VIEW IF NOT EXISTS {{db}}.{name}_view {{on_cluster}} TO {{db}}.{name} AS "
        f"SELECT {select} FROM {{db}}.{source} GROUP BY {group}",
    )
]

DOWN = [
    statement
    for name in reversed(_ROLLUPS)
    for statement in (
        f"DROP VIEW IF EXISTS {{db}}.{name}_view {{on_cluster}} SYNC",
        f"DROP TABLE IF EXISTS {{db}}.{name} {{on_cluster}} SYNC",
    )
]
