-- What nodes and probers did and saw, one row a record, as the collector ships them.

CREATE TABLE $database.trace_points $on_cluster
(
    ts           DateTime64(9, 'UTC') CODEC(DoubleDelta, ZSTD(1)),
    node         LowCardinality(String),
    boot_id      LowCardinality(String),
    seq          UInt64 CODEC(Delta, ZSTD(1)),
    probe_id     UInt64 CODEC(ZSTD(1)),
    hop          LowCardinality(String),
    verdict      LowCardinality(String),
    ip_version   UInt8,
    protocol     UInt8,
    tcp_flags    UInt8,
    direction    LowCardinality(String),
    src_addr     IPv6 CODEC(ZSTD(1)),
    dst_addr     IPv6 CODEC(ZSTD(1)),
    src_port     UInt16,
    dst_port     UInt16,
    residence_ns UInt32 CODEC(ZSTD(1)),
    outer_src    IPv6 CODEC(ZSTD(1)),
    outer_dst    IPv6 CODEC(ZSTD(1)),
    vip_id       UInt32 CODEC(ZSTD(1)),
    server_id    UInt32 CODEC(ZSTD(1)),
    frame_len    UInt16,
    worker       UInt16,
    tcp_seq      UInt32 CODEC(ZSTD(1)),
    tcp_ack      UInt32 CODEC(ZSTD(1)),
    landed       DateTime64(6, 'UTC') DEFAULT now64(6) CODEC(Delta, ZSTD(1)),
    INDEX by_probe probe_id TYPE bloom_filter(0.001) GRANULARITY 1,
    INDEX by_landing landed TYPE minmax GRANULARITY 1
)
ENGINE = @merge()
PARTITION BY toDate(ts)
ORDER BY (hop, node, worker, ts, seq)
TTL toDateTime(ts) + INTERVAL $days DAY
SETTINGS $deduplication, ttl_only_drop_parts = 1;

CREATE TABLE $database.drop_points $on_cluster
(
    ts           DateTime64(9, 'UTC') CODEC(DoubleDelta, ZSTD(1)),
    node         LowCardinality(String),
    boot_id      LowCardinality(String),
    seq          UInt64 CODEC(Delta, ZSTD(1)),
    probe_id     UInt64 CODEC(ZSTD(1)),
    hop          LowCardinality(String),
    reason       LowCardinality(String),
    verdict      LowCardinality(String),
    ip_version   UInt8,
    protocol     UInt8,
    tcp_flags    UInt8,
    direction    LowCardinality(String),
    src_addr     IPv6 CODEC(ZSTD(1)),
    dst_addr     IPv6 CODEC(ZSTD(1)),
    src_port     UInt16,
    dst_port     UInt16,
    residence_ns UInt32 CODEC(ZSTD(1)),
    outer_src    IPv6 CODEC(ZSTD(1)),
    outer_dst    IPv6 CODEC(ZSTD(1)),
    vip_id       UInt32 CODEC(ZSTD(1)),
    server_id    UInt32 CODEC(ZSTD(1)),
    frame_len    UInt16,
    worker       UInt16,
    tcp_seq      UInt32 CODEC(ZSTD(1)),
    tcp_ack      UInt32 CODEC(ZSTD(1)),
    landed       DateTime64(6, 'UTC') DEFAULT now64(6) CODEC(Delta, ZSTD(1)),
    INDEX by_probe probe_id TYPE bloom_filter(0.001) GRANULARITY 1,
    INDEX by_landing landed TYPE minmax GRANULARITY 1
)
ENGINE = @merge()
PARTITION BY toDate(ts)
ORDER BY (reason, node, worker, ts, seq)
TTL toDateTime(ts) + INTERVAL $days DAY
SETTINGS $deduplication, ttl_only_drop_parts = 1;

CREATE TABLE $database.probes $on_cluster
(
    ts          DateTime64(9, 'UTC') CODEC(DoubleDelta, ZSTD(1)),
    prober      LowCardinality(String),
    boot_id     LowCardinality(String),
    closed      DateTime64(9, 'UTC') CODEC(DoubleDelta, ZSTD(1)),
    seq         UInt64 CODEC(Delta, ZSTD(1)),
    probe_id    UInt64 CODEC(ZSTD(1)),
    outcome     LowCardinality(String),
    ip_version  UInt8,
    protocol    UInt8,
    retransmits UInt8,
    rtt_ns      UInt32 CODEC(ZSTD(1)),
    src_addr    IPv6 CODEC(ZSTD(1)),
    dst_addr    IPv6 CODEC(ZSTD(1)),
    src_port    UInt16,
    dst_port    UInt16,
    isn         UInt32 CODEC(ZSTD(1)),
    vip_id      UInt32 CODEC(ZSTD(1)),
    reply_ttl   UInt8,
    landed      DateTime64(6, 'UTC') DEFAULT now64(6) CODEC(Delta, ZSTD(1)),
    INDEX by_probe probe_id TYPE bloom_filter(0.001) GRANULARITY 1,
    INDEX by_landing landed TYPE minmax GRANULARITY 1
)
ENGINE = @merge()
PARTITION BY toDate(ts)
ORDER BY (outcome, prober, vip_id, ts, seq)
TTL toDateTime(ts) + INTERVAL $days DAY
SETTINGS $deduplication, ttl_only_drop_parts = 1;
