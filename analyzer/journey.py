"""The journey of one probe, hop by hop, as people read it."""

from __future__ import annotations

from typing import Any

from analyzer.ledger import Entry, Verdict, is_reset
from analyzer.rows import DROP, Point
from contract.vocabulary import HOPS, DropReason, Hop, Outcome


def outcome_name(outcome: int) -> str:
    """The vocabulary's name in lower case."""
    return Outcome(outcome).name.lower()


def of(entry: Entry) -> dict[str, Any]:
    """Every record of a probe in order of the path, with offsets from the moment it was sent."""
    probe = entry.probe
    sent = probe.ts_ns if probe is not None else entry.first_ns
    points = sorted(entry.points, key=lambda p: (is_reset(p), p.hop, p.ts_ns, p.seq))
    return {
        "probe_id": str(entry.probe_id),
        "probe_id_hex": f"0x{entry.probe_id:016x}",
        "vip_id": entry.vip_id,
        "prober": entry.prober,
        "sent_ns": sent,
        "closed_ns": probe.closed_ns if probe is not None else None,
        "outcome": outcome_name(probe.outcome) if probe is not None else None,
        "rtt_ns": probe.rtt_ns if probe is not None else None,
        "src_port": probe.src_port if probe is not None else None,
        "dst_port": probe.dst_port if probe is not None else None,
        "verdict": verdict_of(entry.verdict),
        "hops": [_hop(p, sent) for p in points],
    }


def verdict_of(verdict: Verdict | None) -> dict[str, Any] | None:
    """A verdict with names for numbers; None for a probe that is not closed yet."""
    if verdict is None:
        return None
    return {
        "kind": verdict.kind,
        "node": verdict.node or None,
        "hop": Hop(verdict.hop).name.lower() if verdict.hop else None,
        "reason": DropReason(verdict.reason).name if verdict.reason else None,
        "toward": verdict.toward or None,
        "text": verdict.text,
        "holes": [{"hop": Hop(h.hop).name.lower(), "node": h.node or None} for h in verdict.holes],
    }


def _hop(point: Point, sent_ns: int) -> dict[str, Any]:
    return {
        "hop": Hop(point.hop).name.lower(),
        "direction": HOPS[Hop(point.hop)].direction.name.lower(),
        "packet": "reset" if is_reset(point) else "probe",
        "node": point.node,
        "worker": point.worker,
        "ts_ns": point.ts_ns,
        "offset_us": round((point.ts_ns - sent_ns) / 1000, 1),
        "residence_us": round(point.residence_ns / 1000, 1),
        "verdict": "dropped" if point.kind == DROP else "forwarded",
        "reason": DropReason(point.reason).name if point.reason else None,
        "outer_src": point.outer_src or None,
        "outer_dst": point.outer_dst or None,
        "server_id": point.server_id or None,
    }
