"""Names the culprit among nodes, clusters, probers, VIPs and real servers, and the runner-up, by likelihood ratio."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from analyzer.ledger import CLB_IN, EIP_IN, VSW_IN, VSW_OUT, Entry
from analyzer.region import Situation
from analyzer.stats import log_likelihood

Candidate = tuple[str, str]  # type, name


@dataclass(frozen=True, slots=True)
class Scored:
    """One candidate: `bad` of the `probes` that touched it failed; `score`: log-likelihood ratio against "nobody"."""

    candidate: Candidate
    bad: int
    probes: int
    score: float

    def as_dict(self) -> dict[str, Any]:
        """For the evidence."""
        kind, name = self.candidate
        return {"type": kind, "name": name, "bad": self.bad, "probes": self.probes, "score": round(self.score, 2)}


def touched(entry: Entry, situation: Situation) -> set[Candidate]:
    """Whom a probe touched; for one that failed also whom it was on its way to."""
    region = situation.region
    out: set[Candidate] = {("node", p.node) for p in entry.hops.values()} | {("node", d.node) for d in entry.drops}
    if entry.prober:
        out.add(("prober", entry.prober))
    if entry.vip_id in region.vips:
        out.add(("vip", region.vips[entry.vip_id].name))
        if EIP_IN in entry.hops:
            out.add(("cluster", situation.cluster_of_vip(entry.vip_id)))
    for hop in (CLB_IN, VSW_IN, VSW_OUT):
        point = entry.hops.get(hop)
        if point is not None and point.server_id in region.servers:
            out.add(("real_server", region.servers[point.server_id].name))
    verdict = entry.verdict
    if verdict is not None and verdict.toward:
        node = region.node_at(verdict.toward)
        if node is not None:
            out.add(("node", node))
    for point in entry.hops.values():
        node = region.node_at(point.outer_dst)
        if node is not None:
            out.add(("node", node))
    return out


def is_bad(entry: Entry) -> bool:
    """Whether a closed probe failed."""
    return entry.verdict is not None and entry.verdict.kind in ("silent", "dropped", "unexplained")


def rank(entries: Iterable[Entry], situation: Situation) -> list[Scored]:
    """Every candidate whose probes fail more often than the others', likeliest first. Closed probes only."""
    bad: dict[Candidate, int] = defaultdict(int)
    total: dict[Candidate, int] = defaultdict(int)
    probes = failures = 0
    for entry in entries:
        if entry.verdict is None or entry.verdict.kind == "unknown_feed":
            continue
        failed = is_bad(entry)
        probes += 1
        failures += failed
        for candidate in touched(entry, situation):
            total[candidate] += 1
            bad[candidate] += failed
    out = []
    for candidate, n in total.items():
        k, rest, rest_bad = bad[candidate], probes - n, failures - bad[candidate]
        if k == 0 or (rest and k / n <= rest_bad / rest):
            continue
        score = log_likelihood(k, n) + log_likelihood(rest_bad, rest) - log_likelihood(failures, probes)
        out.append(Scored(candidate, k, n, score))
    return sorted(out, key=lambda s: (-s.score, s.candidate))


def summary(ranking: list[Scored], culprit: set[Candidate]) -> dict[str, Any]:
    """The culprit's score, the runner-up's and the margin, for the evidence of an incident."""
    named = next((s for s in ranking if s.candidate in culprit), None)
    runner_up = next((s for s in ranking if s.candidate not in culprit), None)
    return {
        "culprit": named.as_dict() if named else None,
        "runner_up": runner_up.as_dict() if runner_up else None,
        "margin": round(named.score - (runner_up.score if runner_up else 0.0), 2) if named else None,
    }
