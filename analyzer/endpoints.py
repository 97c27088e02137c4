"""Faults at the two ends of the path, and of the feeds: real servers, probers and their uplinks, the collector."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

from analyzer import feeds as feed_states
from analyzer.feeds import Feeds
from analyzer.findings import Finding
from analyzer.ledger import EIP_OUT, VSW_IN, Entry
from analyzer.region import SECOND, Situation
from analyzer.stats import at_least

WINDOW_NS = 20 * SECOND
SERVER_WINDOW_NS = 12 * SECOND
MIN_SERVER_PROBES = 6
MIN_UPLINK_LOSSES = 5
HEALTHY_LOSS = 0.001
CHANCE = 1e-5
OUTAGE_NS = 8 * SECOND


def real_servers(entries: Sequence[Entry], horizon: int, situation: Situation) -> list[Finding]:
    """Servers that got probes and answered none of them, on at least one port, for SERVER_WINDOW_NS.

    A refusal counts like silence: the machine lives, the service on it does not. `entries`: closed probes.
    """
    reached: dict[int, dict[int, list[Entry]]] = defaultdict(lambda: defaultdict(list))
    for entry in entries:
        if entry.probe is None or entry.probe.closed_ns < horizon - SERVER_WINDOW_NS:
            continue
        point = entry.hops.get(VSW_IN)
        if point is not None and point.server_id:
            reached[point.server_id][entry.probe.dst_port].append(entry)
    findings = []
    for number, by_port in reached.items():
        server = situation.region.servers.get(number)
        dead = {
            port: seen
            for port, seen in by_port.items()
            if len(seen) >= MIN_SERVER_PROBES and all(_died_in_server(e) for e in seen)
        }
        if server is None or not dead:
            continue
        seen = [entry for port in sorted(dead) for entry in dead[port]]
        refused = sum(e.verdict is not None and e.verdict.kind == "refused" for e in seen)
        where = "" if len(dead) == len(by_port) else f" on port {', '.join(map(str, sorted(dead)))}"
        how = "refused them all" if refused == len(seen) else "answered none"
        findings.append(
            Finding(
                "real_server_dead",
                server.name,
                "real_server",
                f"real server {server.name} on {server.host} got {len(seen)} probes{where} and {how}; "
                "the gateway delivered them",
                horizon,
                cluster=situation.region.cluster_of(server.host),
                vips=sorted({e.vip_id for e in seen}),
                probers=sorted({e.prober for e in seen}),
                evidence={
                    "window_s": SERVER_WINDOW_NS / SECOND,
                    "delivered": len(seen),
                    "answered": 0,
                    "refused": refused,
                    "ports": sorted(dead),
                    "server_id": number,
                },
                samples=[e.probe_id for e in seen[:10]],
            )
        )
    return findings


def _died_in_server(entry: Entry) -> bool:
    verdict = entry.verdict
    if verdict is None:
        return False
    return verdict.kind == "refused" or (verdict.kind == "silent" and verdict.hop == VSW_IN)


def off_the_path(entry: Entry) -> bool:
    """Whether a probe died outside the gateway: in a real server, or between the prober and the EIP nodes."""
    verdict = entry.verdict
    if verdict is None:
        return False
    if verdict.kind == "silent":
        return verdict.hop in (VSW_IN, EIP_OUT)
    return verdict.kind == "unexplained" and not entry.hops


def probers(entries: Sequence[Entry], horizon: int, situation: Situation, feeds: Feeds) -> list[Finding]:
    """Probers that ended, and probers whose own uplink loses what the other probers' does not."""
    findings = []
    for name in situation.region.probers:
        status = feeds.status(name)
        if status in (feed_states.STALE, feed_states.ENDED, feed_states.GONE):
            how = {"stale": "hangs", "ended": "has ended", "gone": "has no feed"}[status]
            findings.append(
                Finding(
                    "prober_lost",
                    name,
                    "prober",
                    f"prober {name} {how}: its probes are missing, which says nothing of the nodes",
                    horizon,
                    probers=[name],
                    evidence={"feed": status},
                )
            )
    sent: Counter[str] = Counter()
    lost: dict[str, list[Entry]] = defaultdict(list)
    for entry in entries:
        if entry.probe is None or entry.verdict is None:
            continue
        sent[entry.prober] += 1
        if entry.verdict.kind in ("silent", "unexplained") and (not entry.hops or EIP_OUT in entry.hops):
            lost[entry.prober].append(entry)
    reported = {f.subject for f in findings}
    for name, gone in lost.items():
        others_sent = sum(n for p, n in sent.items() if p != name)
        others_lost = sum(len(x) for p, x in lost.items() if p != name)
        if name in reported or len(gone) < MIN_UPLINK_LOSSES or others_sent < 20:
            continue
        share, other = len(gone) / sent[name], others_lost / others_sent
        if at_least(len(gone), sent[name], HEALTHY_LOSS) >= CHANCE or other > share / 5:
            continue
        findings.append(
            Finding(
                "prober_lost",
                name,
                "prober",
                f"prober {name} lost {len(gone)} of {sent[name]} probes outside the gateway, "
                f"the others {others_lost} of {others_sent}: its uplink is at fault",
                horizon,
                vips=sorted({e.vip_id for e in gone}),
                probers=[name],
                evidence={
                    "lost": len(gone),
                    "sent": sent[name],
                    "others_lost": others_lost,
                    "others_sent": others_sent,
                },
                samples=[e.probe_id for e in gone[:10]],
            )
        )
    return findings


def collector(feeds: Feeds, now_ns: int, started_ns: int, unreadable_since_ns: int | None) -> Finding | None:
    """An outage of the telemetry itself: nothing lands, or the warehouse cannot be read."""
    since = max(feeds.latest_ns, started_ns)
    if unreadable_since_ns is not None and now_ns - unreadable_since_ns >= OUTAGE_NS:
        text = f"the warehouse could not be read for {(now_ns - unreadable_since_ns) / SECOND:.0f} s"
    elif now_ns - since >= OUTAGE_NS:
        text = f"no feed has landed for {(now_ns - since) / SECOND:.0f} s"
    else:
        return None
    return Finding(
        "collector_outage",
        "collector",
        "collector",
        f"{text}: nothing is known of the nodes, actions are frozen",
        now_ns,
        evidence={"last_feed_ns": feeds.latest_ns, "silent_s": round((now_ns - since) / SECOND, 1)},
    )
