"""ClickHouse, the only store of telemetry: revisions, client, queries, and the process that owns the embedded engine."""
