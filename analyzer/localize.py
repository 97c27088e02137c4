"""Names the culprit among nodes, clusters, probers, VIPs and real servers, and the runner-up, by likelihood ratio."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from analyzer.ledger import CLB_IN, EIP_IN, EIP_OUT, VSW_IN, VSW_OUT, Entry
from analyzer.region import SECOND, Situation
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


def went_wrong(entry: Entry, horizon_ns: int) -> bool | None:
    """Whether a probe failed, by its verdict or, before the prober gives up, by its records; None: not known yet.

    `horizon_ns`: all records from before have landed, so a journey that stops there has come to its end.
    """
    if entry.verdict is not None:
        # A refusal is no fault of the gateway, but it is one of somebody's.
        return None if entry.verdict.kind == "unknown_feed" else is_bad(entry) or entry.verdict.kind == "refused"
    if EIP_OUT in entry.hops:
        return False
    if entry.drops:
        return True
    return True if entry.hops and entry.first_ns < horizon_ns - SECOND // 2 else None


def rank(entries: Iterable[Entry], situation: Situation, horizon_ns: int) -> list[Scored]:
    """Every candidate whose probes fail more often than the others', likeliest first."""
    bad: dict[Candidate, int] = defaultdict(int)
    total: dict[Candidate, int] = defaultdict(int)
    probes = failures = 0
    for entry in entries:
        failed = went_wrong(entry, horizon_ns)
        if failed is None:
            continue
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


def of_collapse(candidate: Candidate, evidence: Mapping[str, Any]) -> Scored | None:
    """The score of a node or cluster whose Trace Points collapsed: how much better "it is down" explains the window.

    Its lost probes carry no record of it, so they cannot be counted among those that touched it.
    """
    chance, expected = evidence.get("chance"), evidence.get("expected")
    if chance is None or expected is None or "seen" not in evidence:
        return None
    missing = round(float(expected)) - int(evidence["seen"]) - int(evidence["holes"])
    return Scored(candidate, max(missing, 0), int(evidence["arrived"]), -math.log(max(float(chance), 1e-300)))


def summary(ranking: list[Scored], culprit: set[Candidate]) -> dict[str, Any]:
    """The culprit's score, the runner-up's and the margin, for the evidence of an incident."""
    named = max((s for s in ranking if s.candidate in culprit), key=lambda s: s.score, default=None)
    runner_up = next((s for s in ranking if s.candidate not in culprit), None)
    return {
        "culprit": named.as_dict() if named else None,
        "runner_up": runner_up.as_dict() if runner_up else None,
        "margin": round(named.score - (runner_up.score if runner_up else 0.0), 2) if named else None,
    }
