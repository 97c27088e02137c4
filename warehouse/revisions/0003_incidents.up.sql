-- Mirrors of what the analyzer keeps (incidents, actions) and of the fleet document (dim_*). The newest revision of a
-- row wins: read with FINAL. Times that have not come yet are 1970-01-01.

CREATE TABLE $database.incidents $on_cluster
(
    id           String,
    fingerprint  String,
    family       LowCardinality(String),
    kind         LowCardinality(String),
    subject      String,
    subject_type LowCardinality(String),
    severity     LowCardinality(String),
    region       LowCardinality(String),
    az           LowCardinality(String),
    cluster      LowCardinality(String),
    state        LowCardinality(String),
    named_nodes  Array(LowCardinality(String)),
    vips         Array(UInt32),
    probers      Array(LowCardinality(String)),
    summary      String CODEC(ZSTD(1)),
    first_seen   DateTime64(9, 'UTC'),
    opened       DateTime64(9, 'UTC'),
    updated      DateTime64(9, 'UTC'),
    last_seen    DateTime64(9, 'UTC'),
    closed       DateTime64(9, 'UTC'),
    reopened     UInt32,
    document     String CODEC(ZSTD(3)),
    revision     UInt64,
    landed       DateTime64(6, 'UTC') DEFAULT now64(6)
)
ENGINE = @replacing(revision)
ORDER BY id
TTL toDateTime(opened) + INTERVAL $history_days DAY
SETTINGS $deduplication;

CREATE TABLE $database.incident_events $on_cluster
(
    incident_id String,
    number      UInt64,
    ts          DateTime64(9, 'UTC'),
    kind        LowCardinality(String),
    text        String CODEC(ZSTD(1)),
    landed      DateTime64(6, 'UTC') DEFAULT now64(6)
)
ENGINE = @replacing()
ORDER BY (incident_id, number)
TTL toDateTime(ts) + INTERVAL $history_days DAY
SETTINGS $deduplication;

CREATE TABLE $database.actions $on_cluster
(
    id          String,
    incident_id String,
    ts          DateTime64(9, 'UTC'),
    kind        LowCardinality(String),
    cluster     LowCardinality(String),
    state       LowCardinality(String),
    refused_by  LowCardinality(String),
    detail      String CODEC(ZSTD(1)),
    vips        Array(UInt32),
    finished    DateTime64(9, 'UTC'),
    document    String CODEC(ZSTD(3)),
    revision    UInt64,
    landed      DateTime64(6, 'UTC') DEFAULT now64(6)
)
ENGINE = @replacing(revision)
ORDER BY id
TTL toDateTime(ts) + INTERVAL $history_days DAY
SETTINGS $deduplication;

CREATE TABLE $database.dim_nodes $on_cluster
(
    epoch          UInt64,
    node           LowCardinality(String),
    role           LowCardinality(String),
    cluster        LowCardinality(String),
    purpose        LowCardinality(String),
    az             LowCardinality(String),
    region         LowCardinality(String),
    tunnel_address IPv6,
    capacity       Float64,
    maintenance    UInt8,
    landed         DateTime64(6, 'UTC') DEFAULT now64(6)
)
ENGINE = @replacing(landed)
ORDER BY (epoch, node)
SETTINGS $deduplication;

CREATE TABLE $database.dim_vips $on_cluster
(
    epoch           UInt64,
    vip_id          UInt32,
    vip             LowCardinality(String),
    cluster         LowCardinality(String),
    az              LowCardinality(String),
    region          LowCardinality(String),
    public_address  IPv6,
    private_address IPv6,
    service_address IPv6,
    demand          Float64,
    landed          DateTime64(6, 'UTC') DEFAULT now64(6)
)
ENGINE = @replacing(landed)
ORDER BY (epoch, vip_id)
SETTINGS $deduplication;

CREATE TABLE $database.dim_servers $on_cluster
(
    epoch     UInt64,
    server_id UInt32,
    server    LowCardinality(String),
    host      LowCardinality(String),
    az        LowCardinality(String),
    region    LowCardinality(String),
    address   IPv6,
    landed    DateTime64(6, 'UTC') DEFAULT now64(6)
)
ENGINE = @replacing(landed)
ORDER BY (epoch, server_id)
SETTINGS $deduplication;

-- The fleet as it is: the newest epoch of each.
CREATE VIEW $database.nodes $on_cluster AS
SELECT * FROM $database.dim_nodes FINAL WHERE epoch = (SELECT max(epoch) FROM $database.dim_nodes);

CREATE VIEW $database.vips $on_cluster AS
SELECT * FROM $database.dim_vips FINAL WHERE epoch = (SELECT max(epoch) FROM $database.dim_vips);

CREATE VIEW $database.servers $on_cluster AS
SELECT * FROM $database.dim_servers FINAL WHERE epoch = (SELECT max(epoch) FROM $database.dim_servers);
