"""What is done about an incident, and why not: the policy, the rails on this side, and the watch over a migration.

Pure: decides on what it is given and returns requests; the caller sends them and hands the answers back. Control keeps
rails of its own (gateway/control/rails.py) and may refuse; its reason goes into the timeline.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from analyzer.collapse import NodeReport
from analyzer.endpoints import off_the_path
from analyzer.feeds import Feeds
from analyzer.incident import Book, Incident
from analyzer.ledger import Entry, Ledger
from analyzer.localize import is_bad
from analyzer.region import SECOND, Situation
from analyzer.store import Store
from contract.incidents import ACTING, MITIGATED, OPEN, VERIFYING

ACTIONABLE = ("node_down", "cluster_down", "jitter")
ENDED = ("done", "failed", "rolled_back", "refused", "dry_run")
CONVERGENCE_NS = SECOND // 2
REFUSED_AGAIN_NS = 30 * SECOND
ANSWER_NS = 20 * SECOND
LOST_NS = 30 * SECOND
BACKOFF_S = (1, 2, 4, 8, 15)
SCATTER_MEMORY_NS = 600 * SECOND


@dataclass(frozen=True, slots=True)
class PostMigration:
    """Ask control for a dispersed migration: POST /v1/migrations."""

    incident_id: str
    cluster: str
    reason: str
    evidence: Mapping[str, int]

    def body(self) -> dict[str, Any]:
        """The JSON body."""
        return {
            "cluster": self.cluster,
            "kind": "dispersed",
            "incident_id": self.incident_id,
            "reason": self.reason,
            "requested_by": "analyzer",
            "dry_run": False,
            "force": False,
            "evidence": dict(self.evidence),
        }


@dataclass(frozen=True, slots=True)
class PostVerdict:
    """Tell control what fresh probes say: POST /v1/migrations/{id}/verdict."""

    incident_id: str
    migration_id: str
    clean: bool
    checked: int
    silent: int

    def body(self) -> dict[str, Any]:
        """The JSON body."""
        return {"clean": self.clean, "checked": self.checked, "silent": self.silent}


Request = PostMigration | PostVerdict


@dataclass(frozen=True, slots=True)
class Answer:
    """Control's answer to a request. `status`: HTTP status, 0 when it could not be reached."""

    request: Request
    status: int
    document: Mapping[str, Any] = field(default_factory=dict)
    error: str = ""


@dataclass(frozen=True, slots=True)
class Decision:
    """act | wait | no_action, and why."""

    what: str
    reason: str


@dataclass(slots=True)
class Context:
    """What decisions are made on, at one moment. `frozen`: why all actions are frozen, "" when they are not."""

    now_ns: int
    situation: Situation
    ledger: Ledger
    feeds: Feeds
    reports: Mapping[str, NodeReport]
    frozen: str
    feed_faults: set[str]  # nodes whose feed is lost


def capacity(cluster: str, situation: Situation, down: Iterable[str]) -> tuple[float, float]:
    """What a cluster's nodes can carry without those that are down, and what its VIPs demand."""
    region, out = situation.region, set(down)
    live = sum(region.nodes[n].capacity for n in situation.expected_members(cluster) if n not in out)
    return live, sum(region.vips[v].demand for v in situation.vips_of(cluster))


def probed(vips: Iterable[int], situation: Situation) -> set[int]:
    """The VIPs that probes go to."""
    known = situation.region.vips
    return {v for v in vips if v in known and any(x.probe and x.protocol == "tcp" for x in known[v].listeners)}


def failed(entry: Entry) -> bool:
    """Whether a closed probe speaks against the gateway."""
    return is_bad(entry) and not off_the_path(entry)


class Remedy:
    """Decides about every open incident, once a look."""

    def __init__(self, book: Book, store: Store) -> None:
        self._book = book
        self._store = store

    def _say(self, incident: Incident, now_ns: int, decision: Decision) -> None:
        """Record a decision when it is another one than the last."""
        said = f"{decision.what}: {decision.reason}"
        if incident.remedy.get("said") == said:
            return
        incident.remedy["said"] = said
        self._store.add_decision(now_ns, "remedy", incident.subject, decision.what, decision.reason, incident.id)
        self._book.event(incident, now_ns, "decision", said)
        self._book.save(incident, now_ns)

    def step(self, context: Context) -> list[Request]:
        """Go on with every open incident; what must be sent to control."""
        out: list[Request] = []
        for incident in self._book.open_ones():
            status = incident.remedy.get("status", "")
            if status == "posted":
                out += self._watch(incident, context)
            elif status == "posting":
                self._await(incident, context)
            else:
                out += self._consider(incident, context)
        return out

    def _consider(self, incident: Incident, context: Context) -> list[Request]:
        now = context.now_ns
        if incident.state == MITIGATED or incident.remedy.get("status") in ("done", "failed"):
            return []
        if now < incident.remedy.get("next_ns", 0):
            return []
        # Only what an incident has confirmed counts as down; a feed that ended is no such word.
        decision = decide(incident, context, self._book.down())
        self._say(incident, now, decision)
        if decision.what == "no_action":
            if incident.state == OPEN:
                self._book.move(incident, VERIFYING, now, "no action; the probes decide")
            return []
        if decision.what == "wait":
            return []
        for migration in context.situation.view.migrations.values():
            # A request of ours that was sent before a restart.
            if migration.get("incident_id") == incident.id and migration.get("state") not in ENDED:
                self._attach(incident, dict(migration), now)
                return []
        incident.remedy |= {"status": "posting", "posted_ns": now}
        self._book.event(incident, now, "request", f"asking control for a dispersed migration of {incident.cluster}")
        self._book.save(incident, now)
        seen = {"probers": len(incident.probers), "vips": len(incident.seen_by_vips)}
        return [PostMigration(incident.id, incident.cluster, decision.reason, seen)]

    def _await(self, incident: Incident, context: Context) -> None:
        for migration in context.situation.view.migrations.values():
            if str(migration.get("id")) in incident.remedy.get("past", ()):
                continue  # of the time before the incident was opened again
            if migration.get("incident_id") == incident.id and migration.get("state") != "refused":
                requested = int(migration.get("requested_ns") or 0)
                if requested >= incident.opened_ns - SECOND:
                    self._attach(incident, dict(migration), context.now_ns)
                    return
        if context.now_ns - incident.remedy.get("posted_ns", 0) > ANSWER_NS:
            incident.remedy["status"] = ""
            self._book.event(incident, context.now_ns, "request", "control did not answer; asking again")
            self._book.save(incident, context.now_ns)

    def answered(self, answer: Answer, now_ns: int) -> None:
        """Take control's answer."""
        incident = self._book.incidents.get(answer.request.incident_id)
        if incident is None:
            return
        if isinstance(answer.request, PostVerdict):
            if 200 <= answer.status < 300:
                word = "clean" if answer.request.clean else "not clean"
                text = f"told control that fresh probes are {word} ({answer.request.checked} checked)"
                self._book.event(incident, now_ns, "verdict", text)
            else:
                incident.remedy.pop("verdict", None)
                incident.remedy["verdict_next_ns"] = now_ns + SECOND
            self._book.save(incident, now_ns)
            return
        if incident.remedy.get("status") != "posting":
            return
        if answer.status in (200, 201, 202):
            self._attach(incident, dict(answer.document), now_ns)
        elif answer.status == 409:
            rail = str(answer.document.get("rail") or "unknown rail")
            detail = str(answer.document.get("detail") or "")
            incident.remedy |= {"status": "refused", "rail": rail, "next_ns": now_ns + REFUSED_AGAIN_NS}
            if incident.remedy.get("refused_by") != rail:
                incident.remedy["refused_by"] = rail
                self._book.event(incident, now_ns, "refused", f"control refused the migration, rail {rail}: {detail}")
                self._store.add_decision(
                    now_ns, "remedy", incident.subject, "refused", f"{rail}: {detail}", incident.id
                )
            self._book.move(incident, VERIFYING, now_ns, f"refused by rail {rail}")
            self._book.save(incident, now_ns)
        else:
            tries = int(incident.remedy.get("tries", 0))
            wait = BACKOFF_S[min(tries, len(BACKOFF_S) - 1)]
            incident.remedy |= {"status": "", "tries": tries + 1, "next_ns": now_ns + wait * SECOND}
            what = f"HTTP {answer.status}" if answer.status else "no answer"
            text = f"control did not take the request ({what}: {answer.error or answer.document}); again in {wait} s"
            self._book.event(incident, now_ns, "request", text)
            self._book.save(incident, now_ns)

    def _attach(self, incident: Incident, migration: dict[str, Any], now_ns: int) -> None:
        identity = str(migration.get("id", ""))
        state = str(migration.get("state", "planned"))
        incident.remedy |= {"status": "posted", "migration_id": identity, "migration_state": state, "acted_ns": now_ns}
        incident.remedy["past"] = [*incident.remedy.get("past", []), identity][-20:]
        text = f"migration {identity} of {incident.cluster}: {state}"
        self._book.event(incident, now_ns, "migration", text)
        self._store.save_action(identity, incident.id, now_ns, self._action(incident, migration, now_ns))
        self._book.move(incident, ACTING, now_ns, f"migration {identity}")
        if state in ENDED:
            self._end(incident, migration, now_ns)
        self._book.save(incident, now_ns)

    @staticmethod
    def _action(incident: Incident, migration: Mapping[str, Any], now_ns: int) -> dict[str, Any]:
        return {
            "id": migration.get("id", ""),
            "incident_id": incident.id,
            "kind": f"{migration.get('kind', 'dispersed')}_migration",
            "cluster": migration.get("cluster", incident.cluster),
            "state": migration.get("state", ""),
            "requested_ns": incident.remedy.get("posted_ns", now_ns),
            "announced_ns": migration.get("announced_ns"),
            "finished_ns": migration.get("finished_ns"),
            "moves": list(migration.get("moves") or []),
            "detail": migration.get("detail") or "",
            "updated_ns": now_ns,
        }

    def _watch(self, incident: Incident, context: Context) -> list[Request]:
        now = context.now_ns
        migration = context.situation.view.migrations.get(str(incident.remedy.get("migration_id")))
        if migration is None:
            if context.situation.view.at_ns > incident.remedy.get("acted_ns", 0) + LOST_NS:
                identity = str(incident.remedy.get("migration_id"))
                lost = {"id": identity, "state": "failed", "detail": "control knows nothing of it any more"}
                self._end(incident, lost, now)
            return []
        state = str(migration.get("state", ""))
        if state != incident.remedy.get("migration_state"):
            incident.remedy["migration_state"] = state
            detail = f" ({migration.get('detail')})" if migration.get("detail") else ""
            self._book.event(incident, now, "migration", f"migration {migration.get('id')}: {state}{detail}")
            action = self._action(incident, migration, now)
            self._store.save_action(str(migration.get("id")), incident.id, now, action)
            self._book.save(incident, now)
        if state in ENDED:
            self._end(incident, dict(migration), now)
            return []
        announced = migration.get("announced_ns")
        if not announced:
            return []
        if incident.state == ACTING:
            self._book.move(incident, VERIFYING, now, "the moved VIPs are announced; fresh probes decide")
        if incident.remedy.get("verdict") or now < incident.remedy.get("verdict_next_ns", 0):
            return []
        moved = {int(m["vip_id"]) for m in migration.get("moves") or [] if "vip_id" in m}
        found = verify(moved, int(announced), context)
        if found is None:
            return []
        clean, checked, silent = found
        incident.remedy["verdict"] = "clean" if clean else "not clean"
        self._book.save(incident, now)
        return [PostVerdict(incident.id, str(migration.get("id")), clean, checked, silent)]

    def _end(self, incident: Incident, migration: dict[str, Any], now_ns: int) -> None:
        state = str(migration.get("state"))
        action = self._action(incident, migration, now_ns)
        self._store.save_action(str(migration.get("id")), incident.id, now_ns, action)
        if state == "refused":
            rail = str(migration.get("refused_by") or "unknown rail")
            incident.remedy |= {"status": "refused", "rail": rail, "next_ns": now_ns + REFUSED_AGAIN_NS}
            incident.remedy.pop("acted_ns", None)
            self._book.event(incident, now_ns, "refused", f"control refused the migration, rail {rail}")
            self._book.move(incident, VERIFYING, now_ns, f"refused by rail {rail}")
        elif state in ("done", "dry_run"):
            incident.remedy["status"] = "done"
            if state == "dry_run":  # nothing was moved, so nothing counts as done
                incident.remedy.pop("acted_ns", None)
            self._book.move(incident, VERIFYING, now_ns, f"migration {migration.get('id')} {state}; the probes decide")
        else:
            incident.remedy["status"] = "failed"
            text = (
                f"migration {migration.get('id')} {state}: {migration.get('detail') or 'no detail'}; a person is needed"
            )
            self._store.add_decision(now_ns, "remedy", incident.subject, "no_action", text, incident.id)
            self._book.move(incident, OPEN, now_ns, text)
        self._book.save(incident, now_ns)


def verify(moved: set[int], announced_ns: int, context: Context) -> tuple[bool, int, int] | None:
    """What probes sent after the announcement say of the moved VIPs: (clean, checked, silent); None: too early.

    Clean: after the last failure every probed VIP was probed at least once, by somebody, and answered.
    """
    situation, now = context.situation, context.now_ns
    wanted = probed(moved, situation)
    start = announced_ns + CONVERGENCE_NS
    fresh = [
        e
        for e in context.ledger.recent(announced_ns)
        if e.verdict is not None and e.probe is not None and e.vip_id in wanted and e.probe.ts_ns >= start
    ]
    bad = [e for e in fresh if failed(e)]
    last_bad = max((e.probe.ts_ns for e in bad if e.probe), default=start)
    good = [e for e in fresh if e.probe and e.probe.ts_ns > last_bad and _passed(e)]
    if {e.vip_id for e in good} >= wanted:
        return True, len(good), 0
    timeout = float(situation.view.rails.get("verify_timeout_s") or situation.region.policy.verify_timeout_s)
    if now - announced_ns > 0.9 * timeout * SECOND and bad:
        return False, len(fresh), len(bad)
    return None


def _passed(entry: Entry) -> bool:
    """Whether the gateway did its part for a probe."""
    verdict = entry.verdict
    if verdict is None:
        return False
    return verdict.kind in ("answered", "refused") or (entry.probe is not None and entry.probe.outcome in (1, 2))


def clean(incident: Incident, context: Context) -> tuple[bool, str]:
    """Whether the probes of an incident's VIPs have been clean for two periods since it was opened, or opened again."""
    situation = context.situation
    region = situation.region
    wanted = probed(incident.vips, situation)
    # A probe that would be silent is known to be so a time-out, and a little, after it was sent.
    until = context.now_ns - region.timeout_ns - 2 * SECOND
    since = until - 2 * region.period_ns
    if since < max(incident.opened_ns, incident.remedy.get("reopened_ns", 0)) - region.timeout_ns:
        return False, "too early"
    count: dict[int, int] = dict.fromkeys(wanted, 0)
    for entry in context.ledger.recent(since):
        if entry.vip_id not in count or entry.probe is None or entry.verdict is None:
            continue
        if entry.probe.ts_ns < since:
            continue
        if failed(entry):
            return False, "a probe failed"
        if _passed(entry):
            count[entry.vip_id] += 1
    if any(n < 2 for n in count.values()):
        return False, "not every VIP was probed twice"
    return True, f"{sum(count.values())} probes of its {len(wanted)} VIPs were clean for two periods"


def decide(incident: Incident, context: Context, down: Iterable[str]) -> Decision:
    """Whether to ask for a migration now: every rail on this side, in order, each with its reason.

    `down`: nodes that incidents have found to be down.
    """
    situation = context.situation
    region, policy = situation.region, situation.region.policy
    rails = situation.view.rails
    if incident.family not in ACTIONABLE:
        return Decision("no_action", f"{incident.kind} is reported, never acted upon")
    if incident.idle:
        return Decision("no_action", "the node serves no probed VIP; there is nothing to move")
    cluster = region.clusters.get(incident.cluster)
    if cluster is None or cluster.role != "clb":
        return Decision("no_action", f"only a CLB cluster's VIPs can be moved; {incident.subject} is none of one")
    if not rails.get("actions_enabled", policy.actions_enabled):
        return Decision("no_action", "actions are switched off")
    if context.frozen:
        return Decision("wait", f"actions are frozen: {context.frozen}")
    doubtful = sorted(context.feed_faults & set(region.members[cluster.name]))
    if doubtful:
        return Decision("wait", f"actions on {cluster.name} are frozen: the feed of {', '.join(doubtful)} is lost")
    served = situation.vips_of(cluster.name)
    if not served:
        return Decision("no_action", f"{cluster.name} serves no VIP")
    if incident.family == "jitter":
        mode = rails.get("on_jitter", policy.on_jitter)
        if mode == "report":
            return Decision("no_action", "policy on_jitter: report")
        reason = f"jitter of {incident.subject}: {incident.summary}"
    else:
        mode = rails.get("on_crash", policy.on_crash)
        live, demand = capacity(cluster.name, situation, {*down, *incident.named_nodes})
        if mode == "report":
            return Decision("no_action", "policy on_crash: report")
        if mode == "migrate_below_capacity" and live >= demand:
            reason = f"the living nodes of {cluster.name} carry {live:g}, its VIPs need {demand:g}"
            return Decision("no_action", reason)
        reason = f"{incident.kind} leaves {cluster.name} with capacity {live:g}, its VIPs need {demand:g}"
    acted = incident.remedy.get("acted_ns", 0)
    cooldown = float(rails.get("cooldown_s", policy.cooldown_s))
    if acted and context.now_ns - acted < cooldown * SECOND:
        return Decision("no_action", "this incident was acted upon already; a second time needs a person")
    if cluster.purpose == "buffer":
        recent = [v for v in served if _came_lately(v, context)]
        if recent:
            names = ", ".join(region.vips[v].name for v in recent[:5])
            return Decision("no_action", f"scattering stops at a buffer cluster that falls; suspects: VIPs {names}")
    need_probers = min(int(rails.get("min_probers", policy.min_probers)), len(region.probers))
    need_vips = min(int(rails.get("min_vips", policy.min_vips)), len(probed(served, situation)))
    if len(incident.probers) < need_probers or len(incident.seen_by_vips) < need_vips:
        return Decision(
            "wait",
            f"agreement: {len(incident.probers)} probers and {len(incident.seen_by_vips)} VIPs saw it, "
            f"expected {need_probers} and {need_vips}",
        )
    if situation.view.at_ns == 0:
        return Decision("wait", "control has not answered yet")
    return Decision("act", reason)


def _came_lately(vip_id: int, context: Context) -> bool:
    placed = context.situation.view.placement.get(vip_id)
    home = context.situation.region.vips[vip_id].cluster
    return placed is not None and placed.cluster != home and context.now_ns - placed.since_ns < SCATTER_MEMORY_NS
