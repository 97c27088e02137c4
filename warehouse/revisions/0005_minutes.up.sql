-- Roll-ups by the minute, made by warehouse/rollups.py and not with each insert: one that runs for every block of a few
-- rows costs more than the block. A minute is worked out anew, and whole, whenever something has landed for it. Rows only
-- ever come in, so of several results for one minute the one that counts most is right. The tables hold them all until
-- they are merged: read the views.
-- The tables by the second go, with what they hold (their records stay); their names become views of the records.

DROP TABLE IF EXISTS $database.probes_1s_fill $on_cluster SYNC;
DROP TABLE IF EXISTS $database.trace_points_1s_fill $on_cluster SYNC;
DROP TABLE IF EXISTS $database.drop_points_1s_fill $on_cluster SYNC;
DROP TABLE IF EXISTS $database.probes_1s $on_cluster SYNC;
DROP TABLE IF EXISTS $database.trace_points_1s $on_cluster SYNC;
DROP TABLE IF EXISTS $database.drop_points_1s $on_cluster SYNC;

-- How far each roll-up has looked, by the time at which records landed.
CREATE TABLE $database.rolled $on_cluster
(
    name    LowCardinality(String),
    through DateTime64(6, 'UTC'),
    run     DateTime64(6, 'UTC') DEFAULT now64(6)
)
ENGINE = @replacing(run)
ORDER BY name
SETTINGS $deduplication;

CREATE TABLE $database.rolled_probes $on_cluster
(
    minute  DateTime('UTC') CODEC(DoubleDelta, ZSTD(1)),
    outcome LowCardinality(String),
    prober  LowCardinality(String),
    vip_id  UInt32,
    probes  UInt64,
    rtt_ns  AggregateFunction(quantilesTDigest(0.5, 0.99), UInt32)
)
ENGINE = @replacing(probes)
PARTITION BY toDate(minute)
ORDER BY (outcome, prober, vip_id, minute)
TTL minute + INTERVAL $rollup_days DAY
SETTINGS $deduplication, ttl_only_drop_parts = 1;

CREATE TABLE $database.rolled_trace_points $on_cluster
(
    minute       DateTime('UTC') CODEC(DoubleDelta, ZSTD(1)),
    hop          LowCardinality(String),
    node         LowCardinality(String),
    worker       UInt16,
    points       UInt64,
    residence_ns AggregateFunction(quantilesTDigest(0.5, 0.99), UInt32)
)
ENGINE = @replacing(points)
PARTITION BY toDate(minute)
ORDER BY (hop, node, worker, minute)
TTL minute + INTERVAL $rollup_days DAY
SETTINGS $deduplication, ttl_only_drop_parts = 1;

CREATE TABLE $database.rolled_drop_points $on_cluster
(
    minute DateTime('UTC') CODEC(DoubleDelta, ZSTD(1)),
    reason LowCardinality(String),
    hop    LowCardinality(String),
    node   LowCardinality(String),
    worker UInt16,
    points UInt64,
    vips   AggregateFunction(uniq, UInt32)
)
ENGINE = @replacing(points)
PARTITION BY toDate(minute)
ORDER BY (reason, hop, node, worker, minute)
TTL minute + INTERVAL $rollup_days DAY
SETTINGS $deduplication, ttl_only_drop_parts = 1;

CREATE VIEW $database.probes_1m $on_cluster AS
SELECT minute, outcome, prober, vip_id, probes, rtt_ns FROM $database.rolled_probes FINAL;

CREATE VIEW $database.trace_points_1m $on_cluster AS
SELECT minute, hop, node, worker, points, residence_ns FROM $database.rolled_trace_points FINAL;

CREATE VIEW $database.drop_points_1m $on_cluster AS
SELECT minute, reason, hop, node, worker, points, vips FROM $database.rolled_drop_points FINAL;

CREATE VIEW $database.probes_1s $on_cluster AS
SELECT
    toDateTime(ts) AS second,
    outcome,
    prober,
    vip_id,
    count() AS probes,
    quantilesTDigestStateIf(0.5, 0.99)(rtt_ns, rtt_ns > 0) AS rtt_ns
FROM $database.probes
GROUP BY second, outcome, prober, vip_id;

CREATE VIEW $database.trace_points_1s $on_cluster AS
SELECT
    toDateTime(ts) AS second,
    hop,
    node,
    worker,
    count() AS points,
    quantilesTDigestState(0.5, 0.99)(residence_ns) AS residence_ns
FROM $database.trace_points
GROUP BY second, hop, node, worker;

CREATE VIEW $database.drop_points_1s $on_cluster AS
SELECT
    toDateTime(ts) AS second,
    reason,
    hop,
    node,
    worker,
    count() AS points,
    uniqState(vip_id) AS vips
FROM $database.drop_points
GROUP BY second, reason, hop, node, worker;
