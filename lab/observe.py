"""What can be seen of a running region, from where an operator would look: APIs, the warehouse, logs.

Every question has a time limit; an answer that did not come is None, never an empty one.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from lab import documents, processes, region, story
from lab.region import Lab
from lab.state import read_lines

TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def _items(page: Any) -> list[dict[str, Any]] | None:
    """The items of a page, which has the newest first, newest last; None when it is none."""
    found = page.get("items") if isinstance(page, dict) else None
    return found[::-1] if isinstance(found, list) else None


class Observer:
    """Asks the services of one lab. Use as a context manager."""

    def __init__(self, lab: Lab, timeout_s: float = 2.0) -> None:
        self.lab = lab
        self._client = httpx.Client(timeout=timeout_s, trust_env=False)
        password = documents.password(lab.run, documents.READER)
        # A region without telemetry has no warehouse to ask.
        self._reader = (documents.READER, password.read_text().strip() if password.exists() else "")

    def __enter__(self) -> Observer:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def get(self, service: str, path: str, **parameters: Any) -> Any:
        """The JSON of GET service/path; None when it does not answer, or not with 2xx."""
        try:
            answer = self._client.get(f"{self.lab.addresses[service]}{path}", params=parameters or None)
        except httpx.HTTPError:
            return None
        return answer.json() if answer.is_success else None

    def query(self, sql: str) -> list[dict[str, Any]] | None:
        """The rows of a SELECT in the warehouse; None when it does not answer."""
        try:
            answer = self._client.post(
                self.lab.addresses["warehouse"] + "/",
                params={"query": f"{sql} FORMAT JSONEachRow"},
                auth=self._reader,
                timeout=10,
            )
        except httpx.HTTPError:
            return None
        if not answer.is_success:
            return None
        # 64-bit numbers come as strings, as in every ClickHouse.
        return [json.loads(line) for line in answer.text.splitlines() if line]

    def incidents(self) -> list[dict[str, Any]] | None:
        """The latest incidents, newest last, as the analyzer tells them."""
        return _items(self.get("analyzer", "/v1/incidents", limit=1000))

    def migrations(self) -> list[dict[str, Any]] | None:
        """The latest migrations, newest last, as control tells them."""
        return _items(self.get("control", "/v1/migrations", limit=1000))

    def nodes(self) -> list[dict[str, Any]] | None:
        """Every node, as control sees it."""
        found = self.get("control", "/v1/nodes")
        return found if isinstance(found, list) else None

    def webhooks(self) -> list[dict[str, Any]]:
        """Everything the receiver has received."""
        return read_lines(self.lab.run.webhooks)

    def totals(self) -> dict[str, Any]:
        """How all probes ended and what became of all records; None for what cannot be known now."""
        ledger = self.get("analyzer", "/v1/ledger") or {}
        lost = self.query(
            "SELECT sum(lost) AS lost FROM "
            "(SELECT node, worker, boot_id, max(lost) AS lost FROM tgw.feeds GROUP BY node, worker, boot_id)"
        )
        gone = self.query("SELECT sum(count) AS lost FROM tgw.losses")
        # Counted with and without repetitions: a record that was shipped twice must be there once.
        who = {"trace_points": "node, worker", "drop_points": "node, worker", "probes": "prober"}
        counts = [
            self.query(f"SELECT count() AS rows, uniqExact({key}, boot_id, seq) AS singles FROM tgw.{table}")
            for table, key in who.items()
        ]
        known = [c[0] for c in counts if c]
        rows = sum(int(c["rows"]) for c in known) if len(known) == len(counts) else None
        singles = sum(int(c["singles"]) for c in known)
        return {
            "probes_total": ledger.get("probes_total"),
            "probes_unexplained": ledger.get("unexplained"),
            "probes_by_verdict": ledger or None,
            "records_written": rows,
            "records_twice": None if rows is None else rows - singles,
            "records_lost": int(lost[0]["lost"]) + int(gone[0]["lost"]) if lost and gone else None,
        }

    def probes(self, since_ns: int) -> list[dict[str, Any]] | None:
        """Closed probes sent since then: ts_ns, closed_ns, outcome, vip_id, prober, dst_port."""
        return self.query(
            "SELECT toUnixTimestamp64Nano(ts) AS ts_ns, toUnixTimestamp64Nano(closed) AS closed_ns, "
            "outcome, vip_id, prober, dst_port FROM tgw.probes "
            f"WHERE ts >= fromUnixTimestamp64Nano({since_ns}) ORDER BY ts"
        )


def incident(document: dict[str, Any]) -> story.Incident:
    """An incident from the analyzer's document; 0 there means not yet."""
    return story.Incident(
        id=document["id"],
        kind=document["kind"],
        named=list(document["named_nodes"]),
        opened_ns=int(document["opened_ns"]),
        closed_ns=int(document.get("closed_ns") or 0) or None,
        state=document["state"],
        mitigated_ns=int(document.get("mitigated_ns") or 0) or None,
    )


def webhook(entry: dict[str, Any]) -> list[story.Webhook]:
    """The alerts in one received Alertmanager body; none in any other body."""
    body = entry.get("body")
    alerts = body.get("alerts") if isinstance(body, dict) else None
    out = []
    for alert in alerts or []:
        incident_id = (alert.get("annotations") or {}).get("incident")
        if incident_id:
            out.append(story.Webhook(int(entry["ts_ns"]), incident_id, str(alert.get("status"))))
    return out


@dataclass
class Tail:
    """Reads the lines that were added to some JSONL files since the last look."""

    paths: list[Path]

    def __post_init__(self) -> None:
        self._at: dict[Path, int] = {}

    def new(self) -> list[dict[str, Any]]:
        """The whole lines that came since the last call."""
        out = []
        for path in self.paths:
            try:
                with path.open("rb") as file:
                    file.seek(self._at.get(path, 0))
                    data = file.read()
            except FileNotFoundError:
                continue
            whole = data[: data.rfind(b"\n") + 1]
            self._at[path] = self._at.get(path, 0) + len(whole)
            out += [json.loads(line) for line in whole.splitlines()]
        return out


def cpu_ticks(lab: Lab, kinds: tuple[str, ...] = ("node",)) -> dict[str, int]:
    """User and system time so far of each living process of these kinds and their living threads [ticks]."""
    out = {}
    for name, process in processes.living(lab.run).items():
        if process.kind in kinds:
            try:
                stat = Path(f"/proc/{process.pid}/stat").read_text()
            except OSError:
                continue
            fields = stat[stat.rindex(")") + 2 :].split()
            out[name] = int(fields[11]) + int(fields[12])
    return out


def cpu_share(before: dict[str, int], after: dict[str, int], seconds: float) -> float:
    """Percent of one core that the processes in both snapshots used together over `seconds`."""
    used = sum(after[name] - before[name] for name in before.keys() & after.keys())
    return 100.0 * used / TICKS_PER_S / seconds


def status(lab: Lab) -> dict[str, Any]:
    """The region in one document: processes, nodes, routes, open incidents, migrations, the last requests."""
    with Observer(lab) as observer:
        incidents = observer.incidents()
        requests: list[dict[str, Any]] = []
        for client in lab.topology.clients:
            requests += read_lines(lab.run.traffic(client))[-100:]
        return {
            "run": str(lab.run.root),
            "addresses": lab.addresses,
            "processes": region.process_list(lab.run),
            "nodes": observer.nodes(),
            "routes": {side: region.router_routes(lab, side) for side in ("edge", "fabric")},
            "open_incidents": None if incidents is None else [i for i in incidents if i.get("state") != "closed"],
            "migrations": observer.migrations(),
            "recent_requests": {
                "total": len(requests),
                "failed": sum(1 for r in requests if r["outcome"] != "ok"),
            },
        }
