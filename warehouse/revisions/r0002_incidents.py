"""What the analyzer mirrors for dashboards: incidents and what happened in them, actions, and the names of things."""

_NAME = "LowCardinality(String)"
_TIME = "DateTime64(9, 'UTC')"
_LANDED = "landed DateTime64(6, 'UTC') DEFAULT now64(6, 'UTC')"


def _table(name: str, columns: list[str], engine: str, order: str, settings: str) -> str:
    lines = ",\n    ".join([*columns, _LANDED])
    tail = f"ENGINE = {{{engine}}} ORDER BY ({order}){settings}"
    return f"CREATE TABLE IF NOT EXISTS {{db}}.{name} {{on_cluster}} (\n    {lines}\n) {tail}"


# A row of these is written anew whenever it changes; the highest `revision` is the present one.
_LATEST = ""
_LOG = " SETTINGS index_granularity = 8192{window}"

UP = [
    _table(
        "incidents",
        [
            "id String",
            "fingerprint String",
            f"kind {_NAME}",
            f"subject {_NAME}",
            f"state {_NAME}",
            f"severity {_NAME}",
            "summary String",
            "named_nodes Array(String)",
            f"opened {_TIME}",
            f"closed Nullable({_TIME})",
            "evidence String",
            "revision UInt64",
        ],
        "replacing",
        "id",
        _LATEST,
    ),
    _table(
        "incident_events",
        [f"ts {_TIME}", "incident_id String", "seq UInt64", f"kind {_NAME}", "text String"],
        "merge_tree",
        "incident_id, ts, seq",
        _LOG,
    ),
    _table(
        "actions",
        [
            f"ts {_TIME}",
            "id String",
            "incident_id String",
            f"kind {_NAME}",
            f"cluster {_NAME}",
            f"state {_NAME}",
            "detail String",
            "revision UInt64",
        ],
        "replacing",
        "id",
        _LATEST,
    ),
    _table(
        "dim_nodes",
        [
            "name String",
            f"cluster {_NAME}",
            f"role {_NAME}",
            f"az {_NAME}",
            "tunnel_address IPv6",
            "epoch UInt64",
            "revision UInt64",
        ],
        "replacing",
        "name",
        _LATEST,
    ),
    _table(
        "dim_vips",
        [
            "id UInt32",
            "name String",
            f"home {_NAME}",
            "public IPv6",
            "private IPv6",
            "service IPv6",
            "epoch UInt64",
            "revision UInt64",
        ],
        "replacing",
        "id",
        _LATEST,
    ),
    _table(
        "dim_servers",
        ["id UInt32", "name String", f"host {_NAME}", "address IPv6", "epoch UInt64", "revision UInt64"],
        "replacing",
        "id",
        _LATEST,
    ),
]

DOWN = [
    f"DROP TABLE IF EXISTS {{db}}.{name} {{on_cluster}} SYNC"
    for name in ("dim_servers", "dim_vips", "dim_nodes", "actions", "incident_events", "incidents")
]
