-- What the collector knows of its taps: which are alive, how far each was read, what was lost.

CREATE TABLE $database.feeds $on_cluster
(
    ts           DateTime64(9, 'UTC') CODEC(DoubleDelta, ZSTD(1)),
    node         LowCardinality(String),
    boot_id      LowCardinality(String),
    worker       UInt16,
    role         LowCardinality(String),
    heartbeat    DateTime64(9, 'UTC') CODEC(DoubleDelta, ZSTD(1)),
    write_cursor UInt64 CODEC(Delta, ZSTD(1)),
    shipped      UInt64 CODEC(Delta, ZSTD(1)),
    lost         UInt64 CODEC(ZSTD(1)),
    suppressed   UInt64 CODEC(ZSTD(1)),
    alive        UInt8,
    landed       DateTime64(6, 'UTC') DEFAULT now64(6) CODEC(Delta, ZSTD(1)),
    INDEX by_landing landed TYPE minmax GRANULARITY 1
)
ENGINE = @merge()
PARTITION BY toDate(ts)
ORDER BY (node, worker, ts)
TTL toDateTime(ts) + INTERVAL $days DAY
SETTINGS $deduplication, ttl_only_drop_parts = 1;

CREATE TABLE $database.node_counters $on_cluster
(
    ts      DateTime64(9, 'UTC') CODEC(DoubleDelta, ZSTD(1)),
    node    LowCardinality(String),
    boot_id LowCardinality(String),
    worker  UInt16,
    counter LowCardinality(String),
    value   UInt64 CODEC(Delta, ZSTD(1)),
    landed  DateTime64(6, 'UTC') DEFAULT now64(6) CODEC(Delta, ZSTD(1)),
    INDEX by_landing landed TYPE minmax GRANULARITY 1
)
ENGINE = @merge()
PARTITION BY toDate(ts)
ORDER BY (counter, node, worker, ts)
TTL toDateTime(ts) + INTERVAL $days DAY
SETTINGS $deduplication, ttl_only_drop_parts = 1;

CREATE TABLE $database.losses $on_cluster
(
    ts        DateTime64(9, 'UTC') CODEC(DoubleDelta, ZSTD(1)),
    node      LowCardinality(String),
    boot_id   LowCardinality(String),
    worker    UInt16,
    first_seq UInt64 CODEC(Delta, ZSTD(1)),
    count     UInt64 CODEC(ZSTD(1)),
    cause     LowCardinality(String),
    landed    DateTime64(6, 'UTC') DEFAULT now64(6) CODEC(Delta, ZSTD(1)),
    INDEX by_landing landed TYPE minmax GRANULARITY 1
)
ENGINE = @merge()
PARTITION BY toDate(ts)
ORDER BY (node, worker, ts, first_seq)
TTL toDateTime(ts) + INTERVAL $days DAY
SETTINGS $deduplication, ttl_only_drop_parts = 1;

CREATE TABLE $database.batches $on_cluster
(
    ts        DateTime64(9, 'UTC') CODEC(DoubleDelta, ZSTD(1)),
    node      LowCardinality(String),
    boot_id   LowCardinality(String),
    worker    UInt16,
    kind      LowCardinality(String),
    first_seq UInt64 CODEC(Delta, ZSTD(1)),
    rows      UInt64 CODEC(Delta, ZSTD(1)),
    token     String,
    landed    DateTime64(6, 'UTC') DEFAULT now64(6) CODEC(Delta, ZSTD(1)),
    INDEX by_landing landed TYPE minmax GRANULARITY 1
)
ENGINE = @merge()
PARTITION BY toDate(ts)
ORDER BY (node, worker, ts, first_seq)
TTL toDateTime(ts) + INTERVAL $days DAY
SETTINGS $deduplication, ttl_only_drop_parts = 1;
