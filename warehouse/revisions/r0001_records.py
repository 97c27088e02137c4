"""What the collector lands: Trace Points, Drop Points, probes, feeds, counters, losses, batches."""

_NAME = "LowCardinality(String)"
_TIME = "DateTime64(9, 'UTC') CODEC(Delta, ZSTD(1))"
_LANDED = "landed DateTime64(6, 'UTC') DEFAULT now64(6, 'UTC') CODEC(Delta, ZSTD(1))"
# A day goes as a whole: parts are dropped, never rewritten.
_TAIL = """ENGINE = {merge_tree}
PARTITION BY toDate({time}) ORDER BY ({order})
TTL toDateTime({time}) + INTERVAL {{days}} DAY DELETE
SETTINGS ttl_only_drop_parts = 1{window}"""


def _table(name: str, columns: list[str], order: str, time: str = "ts", extra: tuple[str, ...] = ()) -> str:
    tail = _TAIL.replace("{time}", time).replace("{order}", order).replace("{{days}}", "{days}")
    lines = ",\n    ".join([*columns, _LANDED, *extra, "INDEX landed_index landed TYPE minmax GRANULARITY 1"])
    return f"CREATE TABLE IF NOT EXISTS {{db}}.{name} {{on_cluster}} (\n    {lines}\n) {tail}"


_POINT = [
    f"ts {_TIME}",
    f"node {_NAME}",
    f"boot_id {_NAME}",
    "seq UInt64 CODEC(Delta, ZSTD(1))",
    "probe_id UInt64 CODEC(ZSTD(1))",
    f"hop {_NAME}",
    f"verdict {_NAME}",
    "ip_version UInt8",
    "protocol UInt8",
    "tcp_flags UInt8",
    f"direction {_NAME}",
    "src_addr IPv6",
    "dst_addr IPv6",
    "src_port UInt16",
    "dst_port UInt16",
    "residence_ns UInt32",
    "outer_src IPv6",
    "outer_dst IPv6",
    "vip_id UInt32",
    "server_id UInt32",
    "frame_len UInt16",
    "worker UInt16",
    "tcp_seq UInt32",
    "tcp_ack UInt32",
]
_TAP = [f"ts {_TIME}", f"node {_NAME}", f"boot_id {_NAME}", "worker UInt16"]
_BY_PROBE = "INDEX probe_index probe_id TYPE bloom_filter(0.01) GRANULARITY 4"

UP = [
    "CREATE DATABASE IF NOT EXISTS {db} {on_cluster}",
    _table("trace_points", _POINT, "node, hop, ts", extra=(_BY_PROBE,)),
    _table("drop_points", [*_POINT, f"reason {_NAME}"], "reason, node, ts", extra=(_BY_PROBE,)),
    _table(
        "probes",
        [
            f"ts {_TIME}",
            f"prober {_NAME}",
            f"boot_id {_NAME}",
            f"closed {_TIME}",
            "seq UInt64 CODEC(Delta, ZSTD(1))",
            "probe_id UInt64 CODEC(ZSTD(1))",
            f"outcome {_NAME}",
            "ip_version UInt8",
            "protocol UInt8",
            "retransmits UInt8",
            "rtt_ns UInt32",
            "src_addr IPv6",
            "dst_addr IPv6",
            "src_port UInt16",
            "dst_port UInt16",
            "isn UInt32",
            "vip_id UInt32",
            "reply_ttl UInt8",
        ],
        "outcome, prober, vip_id, ts",
        extra=(_BY_PROBE,),
    ),
    _table(
        "feeds",
        [
            *_TAP,
            f"role {_NAME}",
            f"heartbeat {_TIME}",
            "write_cursor UInt64",
            "shipped UInt64",
            "lost UInt64",
            "suppressed UInt64",
            "alive UInt8",
        ],
        "role, node, worker, ts",
    ),
    _table(
        "node_counters", [*_TAP, f"counter {_NAME}", "value UInt64 CODEC(Delta, ZSTD(1))"], "counter, node, worker, ts"
    ),
    _table("losses", [*_TAP, "first_seq UInt64", "count UInt64", f"cause {_NAME}"], "cause, node, ts"),
    _table("batches", [*_TAP, f"kind {_NAME}", "first_seq UInt64", "rows UInt64", "token String"], "kind, node, ts"),
]

DOWN = [
    f"DROP TABLE IF EXISTS {{db}}.{name} {{on_cluster}} SYNC"
    for name in ("batches", "losses", "node_counters", "feeds", "probes", "drop_points", "trace_points")
]
