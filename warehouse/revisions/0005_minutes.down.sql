-- Back to roll-ups by the second with each insert. They begin empty: what they held until revision 0005 is gone.
DROP TABLE IF EXISTS $database.drop_points_1s_fill $on_cluster SYNC;
DROP TABLE IF EXISTS $database.trace_points_1s_fill $on_cluster SYNC;
DROP TABLE IF EXISTS $database.probes_1s_fill $on_cluster SYNC;
DROP TABLE IF EXISTS $database.drop_points_1s $on_cluster SYNC;
DROP TABLE IF EXISTS $database.trace_points_1s $on_cluster SYNC;
DROP TABLE IF EXISTS $database.probes_1s $on_cluster SYNC;
DROP TABLE IF EXISTS $database.drop_points_1m $on_cluster SYNC;
DROP TABLE IF EXISTS $database.trace_points_1m $on_cluster SYNC;
DROP TABLE IF EXISTS $database.probes_1m $on_cluster SYNC;
DROP TABLE IF EXISTS $database.rolled_drop_points $on_cluster SYNC;
DROP TABLE IF EXISTS $database.rolled_trace_points $on_cluster SYNC;
DROP TABLE IF EXISTS $database.rolled_probes $on_cluster SYNC;
DROP TABLE IF EXISTS $database.rolled $on_cluster SYNC;

CREATE TABLE IF NOT EXISTS $database.probes_1s $on_cluster
(
    second  DateTime('UTC') CODEC(DoubleDelta, ZSTD(1)),
    outcome LowCardinality(String),
    prober  LowCardinality(String),
    vip_id  UInt32,
    probes  SimpleAggregateFunction(sum, UInt64),
    rtt_ns  AggregateFunction(quantilesTDigest(0.5, 0.99), UInt32)
)
ENGINE = @aggregating()
PARTITION BY toDate(second)
ORDER BY (outcome, prober, vip_id, second)
TTL second + INTERVAL $rollup_days DAY
SETTINGS $deduplication, ttl_only_drop_parts = 1;

CREATE MATERIALIZED VIEW IF NOT EXISTS $database.probes_1s_fill $on_cluster TO $database.probes_1s AS
SELECT
    toStartOfSecond(ts) AS second,
    outcome,
    prober,
    vip_id,
    count() AS probes,
    quantilesTDigestStateIf(0.5, 0.99)(rtt_ns, rtt_ns > 0) AS rtt_ns
FROM $database.probes
GROUP BY second, outcome, prober, vip_id;

CREATE TABLE IF NOT EXISTS $database.trace_points_1s $on_cluster
(
    second       DateTime('UTC') CODEC(DoubleDelta, ZSTD(1)),
    hop          LowCardinality(String),
    node         LowCardinality(String),
    worker       UInt16,
    points       SimpleAggregateFunction(sum, UInt64),
    residence_ns AggregateFunction(quantilesTDigest(0.5, 0.99), UInt32)
)
ENGINE = @aggregating()
PARTITION BY toDate(second)
ORDER BY (hop, node, worker, second)
TTL second + INTERVAL $rollup_days DAY
SETTINGS $deduplication, ttl_only_drop_parts = 1;

CREATE MATERIALIZED VIEW IF NOT EXISTS $database.trace_points_1s_fill $on_cluster TO $database.trace_points_1s AS
SELECT
    toStartOfSecond(ts) AS second,
    hop,
    node,
    worker,
    count() AS points,
    quantilesTDigestState(0.5, 0.99)(residence_ns) AS residence_ns
FROM $database.trace_points
GROUP BY second, hop, node, worker;

CREATE TABLE IF NOT EXISTS $database.drop_points_1s $on_cluster
(
    second DateTime('UTC') CODEC(DoubleDelta, ZSTD(1)),
    reason LowCardinality(String),
    hop    LowCardinality(String),
    node   LowCardinality(String),
    worker UInt16,
    points SimpleAggregateFunction(sum, UInt64),
    vips   AggregateFunction(uniq, UInt32)
)
ENGINE = @aggregating()
PARTITION BY toDate(second)
ORDER BY (reason, hop, node, worker, second)
TTL second + INTERVAL $rollup_days DAY
SETTINGS $deduplication, ttl_only_drop_parts = 1;

CREATE MATERIALIZED VIEW IF NOT EXISTS $database.drop_points_1s_fill $on_cluster TO $database.drop_points_1s AS
SELECT
    toStartOfSecond(ts) AS second,
    reason,
    hop,
    node,
    worker,
    count() AS points,
    uniqState(vip_id) AS vips
FROM $database.drop_points
GROUP BY second, reason, hop, node, worker;
