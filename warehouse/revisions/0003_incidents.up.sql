-- Mirrors of what the analyzer keeps (incidents, their timelines, actions) and of the fleet document (dim_*), written by
-- the analyzer. A row is written anew whenever it changes and the highest `revision` is the present one: read with FINAL.

CREATE TABLE $database.incidents $on_cluster
(
    id          String,
    fingerprint String,
    kind        LowCardinality(String),
    subject     String,
    state       LowCardinality(String),
    severity    LowCardinality(String),
    summary     String CODEC(ZSTD(1)),
    named_nodes Array(String),
    vips        Array(UInt32),
    opened      DateTime64(9, 'UTC'),
    closed      Nullable(DateTime64(9, 'UTC')),
    evidence    String CODEC(ZSTD(3)),
    revision    UInt64,
    landed      DateTime64(6, 'UTC') DEFAULT now64(6)
)
ENGINE = @replacing(revision)
ORDER BY id
TTL toDateTime(opened) + INTERVAL $history_days DAY
SETTINGS $deduplication;

CREATE TABLE $database.incident_events $on_cluster
(
    ts          DateTime64(9, 'UTC'),
    incident_id String,
    seq         UInt64,
    kind        LowCardinality(String),
    text        String CODEC(ZSTD(1)),
    landed      DateTime64(6, 'UTC') DEFAULT now64(6)
)
ENGINE = @replacing()
ORDER BY (incident_id, seq)
TTL toDateTime(ts) + INTERVAL $history_days DAY
SETTINGS $deduplication;

CREATE TABLE $database.actions $on_cluster
(
    ts          DateTime64(9, 'UTC'),
    id          String,
    incident_id String,
    kind        LowCardinality(String),
    cluster     LowCardinality(String),
    state       LowCardinality(String),
    detail      String CODEC(ZSTD(1)),
    revision    UInt64,
    landed      DateTime64(6, 'UTC') DEFAULT now64(6)
)
ENGINE = @replacing(revision)
ORDER BY id
TTL toDateTime(ts) + INTERVAL $history_days DAY
SETTINGS $deduplication;

CREATE TABLE $database.dim_nodes $on_cluster
(
    name           LowCardinality(String),
    cluster        LowCardinality(String),
    role           LowCardinality(String),
    az             LowCardinality(String),
    tunnel_address IPv6,
    epoch          UInt64,
    revision       UInt64,
    landed         DateTime64(6, 'UTC') DEFAULT now64(6)
)
ENGINE = @replacing(revision)
ORDER BY (epoch, name)
SETTINGS $deduplication;

CREATE TABLE $database.dim_vips $on_cluster
(
    id       UInt32,
    name     LowCardinality(String),
    home     LowCardinality(String),
    public   IPv6,
    private  IPv6,
    service  IPv6,
    epoch    UInt64,
    revision UInt64,
    landed   DateTime64(6, 'UTC') DEFAULT now64(6)
)
ENGINE = @replacing(revision)
ORDER BY (epoch, id)
SETTINGS $deduplication;

CREATE TABLE $database.dim_servers $on_cluster
(
    id       UInt32,
    name     LowCardinality(String),
    host     LowCardinality(String),
    address  IPv6,
    epoch    UInt64,
    revision UInt64,
    landed   DateTime64(6, 'UTC') DEFAULT now64(6)
)
ENGINE = @replacing(revision)
ORDER BY (epoch, id)
SETTINGS $deduplication;

-- The fleet as it is: the rows of the newest document.
CREATE VIEW $database.nodes $on_cluster AS
SELECT * FROM $database.dim_nodes FINAL WHERE revision = (SELECT max(revision) FROM $database.dim_nodes);

CREATE VIEW $database.vips $on_cluster AS
SELECT * FROM $database.dim_vips FINAL WHERE revision = (SELECT max(revision) FROM $database.dim_vips);

CREATE VIEW $database.servers $on_cluster AS
SELECT * FROM $database.dim_servers FINAL WHERE revision = (SELECT max(revision) FROM $database.dim_servers);
