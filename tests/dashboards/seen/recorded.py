"""A recorded run of the lab: written once from a region that is up, put into a warehouse by the tests at any time.

    python -m tests.dashboards.seen.recorded RUN URL    writes recorded/ from the lab in RUN, its warehouse at URL

What is kept: the records of every second VIP until 75 s after the last incident opened, times to the microsecond,
residence to 100 ns, without columns that no dashboard reads.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pyarrow
import pyarrow.compute
import pyarrow.parquet

from warehouse.client import Connection, connect
from warehouse.settings import WarehouseSettings

FOLDER = Path(__file__).parent / "recorded"
MICRO = "toDateTime64(ts, 6) AS ts"
POINT = (
    f"{MICRO}, node, probe_id, hop, verdict, tcp_flags, direction, "
    "toUInt32(intDiv(residence_ns, 100) * 100) AS residence_ns, outer_src, outer_dst, vip_id, server_id, worker"
)
ENOUGH = "t.ts <= (SELECT max(opened) FROM incidents) + INTERVAL 75 SECOND"
# Table -> columns, and the order in which they pack well.
KEPT = {
    "trace_points": (POINT, "probe_id, ts"),
    "drop_points": (f"{POINT}, reason", "probe_id, ts"),
    "probes": (
        f"{MICRO}, prober, toDateTime64(closed, 6) AS closed, probe_id, outcome, retransmits, rtt_ns, "
        "src_addr, dst_addr, src_port, dst_port, vip_id",
        "probe_id",
    ),
    "feeds": (
        f"{MICRO}, node, boot_id, worker, role, toDateTime64(heartbeat, 3) AS heartbeat, "
        "write_cursor, shipped, lost, suppressed, alive",
        "node, worker, ts",
    ),
    "losses": ("ts, node, boot_id, worker, first_seq, count, cause", "ts"),
    "incidents": (
        "id, fingerprint, kind, subject, state, severity, summary, named_nodes, vips, opened, closed, "
        "evidence, revision",
        "id, revision",
    ),
    "incident_events": ("ts, incident_id, seq, kind, text", "incident_id, seq"),
    "actions": ("ts, id, incident_id, kind, cluster, state, detail, revision", "id, revision"),
    "dim_nodes": ("name, cluster, role, az, tunnel_address, epoch, revision", "name"),
    "dim_vips": ("id, name, home, public, private, service, epoch, revision", "id"),
    "dim_servers": ("id, name, host, address, epoch, revision", "id"),
}


def record(run: Path, address: str) -> None:
    """Write the tables of the lab in `run`, whose warehouse listens on `address` (http://host:port)."""
    client = connect(WarehouseSettings(url=address, user="reader", password_file=run / "keys" / "reader.password"))
    FOLDER.mkdir(exist_ok=True)
    for table, (columns, order) in KEPT.items():
        kept = [ENOUGH] if columns.startswith(("ts,", MICRO)) and table not in ("incident_events", "actions") else []
        kept += ["vip_id % 2 = 1"] if "vip_id" in columns else []
        where = f"WHERE {' AND '.join(kept)}" if kept else ""
        rows = client.query_arrow(f"SELECT {columns} FROM {table} AS t {where} ORDER BY {order}", use_strings=True)
        write(table, rows)
    client.close()


def write(table: str, rows: pyarrow.Table) -> None:
    """Write a table's file, packed as small as it goes."""

    def counts(of: pyarrow.DataType) -> bool:
        return bool(pyarrow.types.is_timestamp(of) or (pyarrow.types.is_integer(of) and of.bit_width >= 32))

    pyarrow.parquet.write_table(
        rows,
        FOLDER / f"{table}.parquet",
        compression="zstd",
        compression_level=22,
        use_dictionary=[f.name for f in rows.schema if pyarrow.types.is_string(f.type)] or False,
        column_encoding={f.name: "DELTA_BINARY_PACKED" for f in rows.schema if counts(f.type)},
        write_statistics=False,
    )


def last_ns() -> int:
    """When the recording ended [ns since 1970]."""
    ts = pyarrow.parquet.read_table(FOLDER / "feeds.parquet", columns=["ts"])["ts"]
    return int(pyarrow.compute.max(ts).cast(pyarrow.timestamp("ns", "UTC")).cast(pyarrow.int64()).as_py())


def load(writer: Connection, end_ns: int) -> None:
    """Put the recording into an empty warehouse, moved in time so that it ended at `end_ns`."""
    shift = end_ns - last_ns()
    for table in KEPT:
        rows = pyarrow.parquet.read_table(FOLDER / f"{table}.parquet")
        for i, field in enumerate(rows.schema):
            if pyarrow.types.is_timestamp(field.type):
                at = rows[field.name].cast(pyarrow.timestamp("ns", "UTC")).cast(pyarrow.int64())
                moved = pyarrow.compute.add(at, shift).cast(pyarrow.timestamp("ns", "UTC"))
                rows = rows.set_column(i, field.name, moved)
        if rows.num_rows:
            writer.insert_arrow(table, rows)


if __name__ == "__main__":
    record(Path(sys.argv[1]), sys.argv[2])
