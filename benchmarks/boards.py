"""How long each panel's SQL takes on an hour of a region of 1,000 VIPs, in the embedded engine, as the reader.

    python -m benchmarks.boards [--vips N] [--seconds N]

Writes `out/bench/dashboards.json`: per panel the time of its statement [s], the first (nothing in caches) and the best
of the rest. The rows are generated in the engine: what they say is made up, how many there are is not.
"""

from __future__ import annotations

import argparse
import contextlib
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import clickhouse_connect
from rich.console import Console

from benchmarks import goals
from dashboards import build
from dashboards.source import Range, expand
from warehouse.migrate import Remote
from warehouse.rollups import roll

OUT = Path(__file__).resolve().parents[1] / "out" / "bench" / "dashboards.json"
PASSWORD = "a password of the benchmark alone"
NODES = 50  # of them 6 EIP nodes and 12 hosts; the rest LDs
PERIOD_S = 5
AGAIN = 3
PANEL_S, BOARD_S = 1.0, 5.0
STEPS = (1, 2, 5, 10, 15, 20, 30, 60, 120, 300, 600, 900, 1200, 1800, 3600)


@contextlib.contextmanager
def engine(home: Path) -> Iterator[int]:
    """A warehouse process; its port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    (home / "password").write_text(PASSWORD)
    (home / "warehouse.toml").write_text(
        f'state_dir = "{home / "state"}"\n[listen]\nport = {port}\n'
        f'[writer]\nname = "tgw"\npassword_file = "{home / "password"}"\n'
        f'[reader]\nname = "reader"\npassword_file = "{home / "password"}"\n'
    )
    with (home / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "warehouse", str(home / "warehouse.toml")], stdout=log, stderr=log
        )
    try:
        yield port
    finally:
        process.terminate()
        process.wait(timeout=30)


def client(port: int, user: str) -> Any:
    """A client of it, once it is up."""
    deadline = time.monotonic() + 60
    while True:
        try:
            return clickhouse_connect.get_client(
                host="127.0.0.1", port=port, username=user, password=PASSWORD, database="tgw",
                send_receive_timeout=300, autogenerate_session_id=False,
            )  # fmt: skip
        except clickhouse_connect.driver.exceptions.Error:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.3)


def fill(writer: Any, vips: int, seconds: int, end: int) -> dict[str, int]:
    """An hour of records; the number of rows by table. One LD of 32 falls silent in the last five minutes."""
    lds = NODES - 18
    node = (
        f"multiIf(hop IN ('eip_in', 'eip_out'), concat('eip-', toString(vip % 6)), hop IN ('clb_in', 'clb_out'), "
        f"concat('ld-', toString(vip % {lds})), concat('host-', toString(vip % 12)))"
    )
    dead = f"(vip % {lds} = 7 AND at > {end} - 300)"
    each = 600  # seconds a statement: bounded memory
    for first in range(end - seconds, end, each):
        probes = min(each, end - first) // PERIOD_S * vips
        source = (
            f"(SELECT number % {vips} + 1 AS vip, "
            f"{first} + intDiv(number, {vips}) * {PERIOD_S} + vip % {PERIOD_S} AS at, "
            f"toDateTime64(at, 9) + toIntervalNanosecond(vip * 1000) AS ts, "
            f"9300000000000000000 + at % 100000000 * {vips * 2} + vip AS probe, {dead} AS dead FROM numbers({probes}))"
        )
        writer.command(
            "INSERT INTO probes (ts, prober, boot_id, closed, seq, probe_id, outcome, rtt_ns, src_port, dst_port, "
            f"vip_id) SELECT ts, concat('prober-', toString(vip % 4)), 'b', ts + 1, at, probe, "
            "if(dead, 'silent', 'answered'), if(dead, 0, 1000000 + rand() % 1000000), 10000 + vip % 50000, 80, vip "
            f"FROM {source}"
        )
        writer.command(
            "INSERT INTO trace_points (ts, node, boot_id, seq, probe_id, hop, verdict, tcp_flags, residence_ns, "
            f"vip_id) SELECT ts, {node}, 'b', at, probe, hop, 'forwarded', if(i < 3, 2, 18), 10000 + rand() % 30000, "
            "vip FROM "
            f"(SELECT *, arrayJoin([0, 1, 2, 3, 4, 5]) AS i, "
            f"['eip_in', 'clb_in', 'vsw_in', 'vsw_out', 'clb_out', 'eip_out'][i + 1] AS hop FROM {source}) "
            "WHERE NOT dead OR i = 0"
        )
        writer.command(
            "INSERT INTO drop_points (ts, node, boot_id, seq, probe_id, hop, reason, tcp_flags, vip_id) "
            f"SELECT ts, {node}, 'b', at, 0, hop, ['NO_ROUTE', 'TTL_EXPIRED', 'ACL_DENY'][vip % 3 + 1], 2, vip FROM "
            f"(SELECT *, 'clb_in' AS hop FROM {source}) WHERE cityHash64(probe) % 50 = 0"
        )
        writer.command(
            "INSERT INTO feeds (ts, node, boot_id, worker, role, heartbeat, write_cursor, shipped, alive) "
            f"SELECT toDateTime64({first} + intDiv(number, {NODES}), 9) AS ts, multiIf(number % {NODES} < 6, "
            f"concat('eip-', toString(number % {NODES})), number % {NODES} < 18, concat('host-', "
            f"toString(number % {NODES} - 6)), concat('ld-', toString(number % {NODES} - 18))), 'b', 0, 'clb', ts, "
            f"number, number, 1 FROM numbers({min(each, end - first) * NODES})"
        )
    writer.insert(
        "dim_nodes",
        [[f"eip-{i}", "eip", "eip", "az-a", "::", 1, 1] for i in range(6)]
        + [[f"host-{i}", "hosts", "vswitch", "az-b", "::", 1, 1] for i in range(12)]
        + [[f"ld-{i}", f"clb-{i // 4}", "clb", f"az-{'ab'[i % 2]}", "::", 1, 1] for i in range(lds)],
        column_names=["name", "cluster", "role", "az", "tunnel_address", "epoch", "revision"],
    )
    writer.insert(
        "dim_vips",
        [[i, f"vip-{i}", f"clb-{i % lds // 4}", "::", "::", "::", 1, 1] for i in range(1, vips + 1)],
        column_names=["id", "name", "home", "public", "private", "service", "epoch", "revision"],
    )
    hit = [i for i in range(1, vips + 1) if i % lds == 7]
    row = ["inc-1", "crash", "ld-7", "open", "critical", ["ld-7"], hit, "it fell silent", (end - 280) * 10**9, 1]
    columns = ["id", "kind", "subject", "state", "severity", "named_nodes", "vips", "summary", "opened", "revision"]
    writer.insert("incidents", [row], column_names=columns)
    return {
        t: int(writer.command(f"SELECT count() FROM {t}")) for t in ("probes", "trace_points", "drop_points", "feeds")
    }


def measure(reader: Any, begin: int, end: int) -> list[dict[str, Any]]:
    """The time of each panel's statement, over the steps that Grafana would choose for the range [s since 1970]."""
    found = reader.query("SELECT probe_id FROM probes WHERE outcome != 'answered' ORDER BY ts DESC LIMIT 1").result_rows
    chosen: dict[str, Any] = dict.fromkeys(("az", "role", "cluster", "node", "vip"), "*")
    chosen |= {"incident": "inc-1", "probe": found[0][0]}
    out = []
    for uid, document in build.documents().items():
        for panel in document["panels"]:
            for target in panel.get("targets", []):
                finest = {"5s": 5, "1m": 60}.get(panel.get("interval", ""), 1)
                wanted = (end - begin) / panel.get("maxDataPoints", 240)
                step = max(finest, max(s for s in STEPS if s <= max(wanted, 1)))
                sql = expand(target["rawSql"], Range(begin * 1000, end * 1000, step), chosen)
                times = []
                for _ in range(1 + AGAIN):
                    began = time.monotonic()
                    rows = len(reader.query(sql).result_rows)
                    times.append(time.monotonic() - began)
                first, best = round(times[0], 4), round(min(times[1:]), 4)
                out.append({"dashboard": uid, "panel": panel["title"], "rows": rows, "first_s": first, "best_s": best})
    return out


def main() -> None:
    """Measure, write the file, show the goals."""
    parser = argparse.ArgumentParser(description="time of each panel's SQL")
    parser.add_argument("--vips", type=int, default=1000)
    parser.add_argument("--seconds", type=int, default=3600)
    given = parser.parse_args()
    console = Console()
    with tempfile.TemporaryDirectory(prefix="tgw-boards-") as home, engine(Path(home)) as port:
        end = int(time.time()) - 1
        writer = client(port, "tgw")
        rows = fill(writer, given.vips, given.seconds, end)
        roll(Remote(writer), "tgw")
        panels = measure(client(port, "reader"), end - given.seconds, end)
    slowest = max(panels, key=lambda p: p["best_s"])
    boards = {uid: round(sum(p["best_s"] for p in panels if p["dashboard"] == uid), 3) for uid in build.documents()}
    asked = [
        goals.bound(f"the slowest panel ({slowest['panel']})", "<=", PANEL_S, slowest["best_s"], "s"),
        goals.bound("the slowest dashboard, all panels one after another", "<=", BOARD_S, max(boards.values()), "s"),
    ]
    data = {"vips": given.vips, "seconds": given.seconds, "rows": rows, "panels": panels, "dashboards": boards}
    goals.write(OUT, goals.result(data, asked))
    for p in sorted(panels, key=lambda p: -p["best_s"])[:12]:
        console.print(
            f"{p['best_s']:8.3f} s  first {p['first_s']:.3f}  {p['rows']:6} rows  {p['dashboard']}: {p['panel']}"
        )
    console.print(rows, boards)
    console.print(goals.table(asked, f"dashboards on {given.vips} VIPs x {given.seconds} s"))


if __name__ == "__main__":
    main()
