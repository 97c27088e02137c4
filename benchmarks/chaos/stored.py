"""What the warehouse holds at the end, read as anyone would: through its endpoint."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from benchmarks.chaos.accounts import TABLES, Loss
from warehouse import client
from warehouse.migrate import Remote
from warehouse.rollups import roll
from warehouse.settings import WarehouseSettings

# A row of these is one reading of one tap (of one of its counters), or one batch's word on one tap.
SIDE_KEYS = {
    "feeds": "node, boot_id, worker, ts",
    "node_counters": "node, boot_id, worker, counter, ts",
    "losses": "node, boot_id, worker, first_seq, cause, ts",
    "batches": "node, boot_id, worker, kind, first_seq, rows",
}
# Roll-up -> its records, and the column that counts them.
ROLLUPS = {
    "probes_1m": ("probes", "probes"),
    "trace_points_1m": ("trace_points", "points"),
    "drop_points_1m": ("drop_points", "points"),
}
_NAMES = {"ts_ns": "toUnixTimestamp64Nano(ts)", "closed_ns": "toUnixTimestamp64Nano(closed)"}


class Stored:
    """A warehouse after the chaos. Its methods raise warehouse.client.Unavailable and Refused."""

    def __init__(self, settings: WarehouseSettings) -> None:
        self._connection = client.Connection(settings)
        self._client = client.connect(settings)
        self._database = settings.database

    def close(self) -> None:
        """Close both connections."""
        self._connection.close()
        self._client.close()

    def records(self, nodes: Sequence[str]) -> dict[str, pd.DataFrame]:
        """All rows of the tables of records, node by node (answers stay small), and those of any other node."""
        out = {}
        for table, columns in TABLES.items():
            named = "prober" if table == "probes" else "node"
            worker = "toUInt16(0)" if table == "probes" else "worker"
            wanted = [f"{_NAMES[c]} AS {c}" if c in _NAMES else c for c in columns if c != "worker"]
            head = f"SELECT toString({named}) AS node, toString(boot_id) AS boot_id, {worker} AS worker, "
            known = ", ".join(f"'{n}'" for n in nodes)
            parts = []
            for where in [*(f"{named} = '{n}'" for n in nodes), f"{named} NOT IN ({known})"]:
                sql = f"{head}{', '.join(wanted)} FROM {table} WHERE {where}"
                parts.append(self._client.query_arrow(sql).to_pandas())
            out[table] = pd.concat(parts, ignore_index=True)
        return out

    def losses(self) -> list[Loss]:
        """Every row of `losses`."""
        sql = "SELECT toString(node), toString(boot_id), worker, first_seq, count, toString(cause) FROM losses"
        return [Loss((n, b, int(w)), int(f), int(c), str(cause)) for n, b, w, f, c, cause in self._query(sql)]

    def side_duplicates(self) -> dict[str, int]:
        """Rows that stand more often than once in the tables that are not records."""
        return {
            table: int(self._query(f"SELECT count() - uniqExact({key}) FROM {table}")[0][0])
            for table, key in SIDE_KEYS.items()
        }

    def rollups(self) -> dict[str, int]:
        """Bring the roll-ups up to now; for each by how many records it is off: positive when it counts some twice."""
        roll(Remote(self._client), self._database)
        out = {}
        for rollup, (of, counted) in ROLLUPS.items():
            sql = f"SELECT (SELECT toInt64(sum({counted})) FROM {rollup}) - toInt64(count()) FROM {of}"
            out[rollup] = int(self._query(sql)[0][0])
        return out

    def feeds(self) -> dict[tuple[str, str, int], tuple[int, int]]:
        """Of each tap's last row in `feeds`: (shipped, lost)."""
        sql = (
            "SELECT toString(node), toString(boot_id), worker, argMax(shipped, ts), argMax(lost, ts) FROM feeds "
            "GROUP BY node, boot_id, worker"
        )
        return {(n, b, int(w)): (int(s), int(lost)) for n, b, w, s, lost in self._query(sql)}

    def incidents(self) -> set[str]:
        """Ids of the incidents that the analyzer has mirrored."""
        return {str(i) for (i,) in self._query("SELECT id FROM incidents FINAL")}

    def _query(self, sql: str) -> list[tuple[Any, ...]]:
        return self._connection.query(sql)
