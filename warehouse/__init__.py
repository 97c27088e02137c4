"""ClickHouse, the only store of telemetry: its schema, its queries, and the server of the embedded engine.

Everyone but the owner of the embedded engine speaks ClickHouse's HTTP protocol, so that a ClickHouse server or cluster
can stand in its place: `warehouse.client.connect` with another URL, and no `python -m warehouse` process at all.
"""
