"""The analyzer without its I/O: rows and a clock in; requests, notifications and durable state out."""

from __future__ import annotations

import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import structlog

from analyzer import journey, localize, remedy
from analyzer.alerting import alert
from analyzer.alerting.deliver import Outbox
from analyzer.alerting.groups import Groups
from analyzer.alerting.moment import Moment
from analyzer.alerting.notify import Notifier
from analyzer.alerting.receivers.base import Receiver
from analyzer.alerting.silence import NewSilence, Silence
from analyzer.detect import Detector
from analyzer.feeds import Feeds
from analyzer.findings import Finding
from analyzer.incident import Book, Incident
from analyzer.keep import Keep
from analyzer.ledger import Ledger
from analyzer.region import SECOND, ControlView, Region, Situation
from analyzer.rows import Rows
from analyzer.store import Store
from contract.documents import DocumentError, stored

log = structlog.get_logger()

EVIDENCE_NS = 20 * SECOND
MAX_SAMPLES = 5
# After an outage of the feeds the picture must have been whole for this long before anything is done.
THAW_NS = 10 * SECOND
PRUNE_NS = 3600 * SECOND
ALERT_MEMORY_NS = 24 * 3600 * SECOND
# A fresh start looks back this far to learn what is healthy; a restart as far as the last look, but no further than
# LONGEST_BACK_NS.
BACK_NS = 300 * SECOND
LONGEST_BACK_NS = 3600 * SECOND


@dataclass(slots=True)
class Look:
    """What one look gave: requests for control; the ids of notifications that were enqueued; incidents that changed."""

    requests: list[remedy.Request] = field(default_factory=list)
    notifications: list[str] = field(default_factory=list)
    opened: list[Incident] = field(default_factory=list)
    closed: list[Incident] = field(default_factory=list)
    mitigated: list[Incident] = field(default_factory=list)


class Engine:
    """All parts in their order. One call of `look` a second; `take_answer` whenever control has answered.

    `mono_ns`: a clock that nobody sets, for what people are told and when; without it the wall clock stands in, which
    is right only where that one never steps.
    """

    def __init__(
        self,
        region: Region,
        store: Store,
        now_ns: int,
        receivers: Sequence[Receiver] = (),
        url: str = "",
        keep: Keep | None = None,
        mono_ns: int | None = None,
        grafana: str = "",
    ) -> None:
        self.region = region
        self.store = store
        self.started_ns = now_ns
        self.now_ns = now_ns
        self.view = ControlView()
        self.feeds = Feeds()
        self.ledger = Ledger(region, self.feeds)
        last = self._load_ledger(now_ns)
        # A first start learns from the past, but answers only for probes sent while it could see control as well.
        self.ledger.since_ns = int(store.get("since_ns", 0))
        if not self.ledger.since_ns:
            self.ledger.since_ns = now_ns
            store.put("since_ns", now_ns)
            store.commit()
        # From which record time on the warehouse must be read at first.
        self.read_from_ns = max(now_ns - LONGEST_BACK_NS, min(now_ns - BACK_NS, last - 30 * SECOND))
        self.detector = Detector(now_ns)
        self.book = Book(store, now_ns)
        self.remedy = remedy.Remedy(self.book, store)
        self.receivers = list(receivers)
        # Receivers that said that they are no more, until the next start.
        self.gone: dict[str, str] = {}
        self.groups = Groups(store, [r.name for r in receivers], Moment(now_ns, now_ns if mono_ns is None else mono_ns))
        self.notifier = Notifier(receivers, store, self.groups, self.gone)
        self.outbox = Outbox(receivers, store, self.groups, self.gone, region.fleet.region, url)
        self.silences = self._load_silences()
        self._keep_of_past = keep or Keep()
        self._next_prune = 0
        self.findings: list[Finding] = []
        self.frozen = ""
        self.lag_s = 0.0
        self._url, self._grafana = url, grafana
        self._unreadable_since: int | None = None
        self._outage_ns = 0

    def _load_ledger(self, now_ns: int) -> int:
        """Take up the totals of the life before; when it looked last [ns], now when there is nothing to take up."""
        kept = self.store.get("ledger", {})
        if not kept:
            return now_ns
        try:
            counted = [(p, b, f, list(a)) for p, b, f, a in kept["counted"]]
            last = int(kept["at_ns"])
            self.ledger.load_counted(counted, {str(k): int(v) for k, v in kept["totals"].items()})
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            self.store.set_aside("kept", "ledger", repr(error))
            return now_ns
        return last

    def _load_silences(self) -> dict[str, Silence]:
        found = {}
        for document in self.store.silences():
            try:
                silence, unknown = stored(json.dumps(document), Silence, "a silence of the store")
            except DocumentError as error:
                self.store.set_aside("silences", str(document.get("id")), str(error))
                continue
            if unknown:
                log.warning("fields of a stored silence are not known here", id=silence.id, fields=unknown[:20])
            found[silence.id] = silence
        return found

    def _prune(self, now_ns: int) -> None:
        """Once an hour let go of what is beyond the bounds, in memory and on disk."""
        if self._next_prune - PRUNE_NS <= now_ns < self._next_prune:
            return
        self._next_prune = now_ns + PRUNE_NS
        self.book.forget(now_ns)
        self.store.prune(self._keep_of_past, self.book.incidents, now_ns)
        left = {s["id"] for s in self.store.silences()}
        self.silences = {k: s for k, s in self.silences.items() if k in left}

    def exchange_region(self, region: Region) -> None:
        """Go on with a changed fleet document."""
        self.region = region
        self.ledger.region = region

    def situation(self) -> Situation:
        """The region and control's view of it now."""
        return Situation(self.region, self.view)

    def take(self, rows: Rows, now_ns: int) -> None:
        """Take rows in; those known already are ignored."""
        for feed in rows.feeds:
            self.feeds.add(feed)
        for batch in rows.batches:
            self.feeds.add_batch(batch)
        for loss in rows.losses:
            self.feeds.add_loss(loss)
        for point in rows.points:
            if self.ledger.add_point(point, now_ns):
                self.detector.add(point)
        for probe in rows.probes:
            self.ledger.add_probe(probe, now_ns)

    def look(self, now_ns: int, rows: Rows | None, view: ControlView | None = None, mono_ns: int | None = None) -> Look:
        """One turn. `rows` None: the warehouse could not be read. `view` None: control did not answer."""
        self.now_ns = now_ns
        if rows is None:
            self._unreadable_since = self._unreadable_since or now_ns
        else:
            self._unreadable_since = None
            self.take(rows, now_ns)
        if view is not None:
            self.view = view
        self.lag_s = max(0, now_ns - self.feeds.latest_ns) / SECOND if self.feeds.latest_ns else 0.0
        situation = self.situation()
        before = dict(self.ledger.totals)
        self.ledger.close(now_ns, situation)
        if before != dict(self.ledger.totals):
            self.store.put(
                "ledger",
                {"totals": dict(self.ledger.totals), "counted": self.ledger.dump_counted(), "at_ns": now_ns},
            )
        findings = self.detector.look(now_ns, self.ledger, self.feeds, situation, self._unreadable_since)
        self.findings = findings
        out = Look()
        context = self._context(now_ns, situation, findings)
        out.opened = self.book.take(findings, situation, now_ns, self._evidence)
        self.book.clear(situation, self.detector.reports, now_ns)
        out.requests = self.remedy.step(context)
        if not any(f.family == "collector_outage" for f in findings):
            out.closed, out.mitigated = self.book.close_what_is_clean(
                now_ns, situation, lambda i: remedy.clean(i, context)
            )
        out.notifications = self._notify(Moment(now_ns, now_ns if mono_ns is None else mono_ns))
        self._prune(now_ns)
        self.store.commit()
        return out

    def _context(self, now_ns: int, situation: Situation, findings: Sequence[Finding]) -> remedy.Context:
        outage = next((f for f in findings if f.family == "collector_outage"), None)
        if outage is not None:
            self._outage_ns = now_ns
            # Without its seconds: a reason that changes every look would be a new decision every look.
            self.frozen = "telemetry does not land, so nothing is known of the nodes"
        elif self._outage_ns and now_ns - self._outage_ns < THAW_NS:
            self.frozen = "the feeds have only just come back"
        else:
            self.frozen = ""
        doubtful = {n for f in findings if f.family == "feed_lost" for n in f.nodes}
        return remedy.Context(now_ns, situation, self.ledger, self.feeds, self.detector.reports, self.frozen, doubtful)

    def _evidence(self, finding: Finding) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """The numbers of a finding with the ranking of suspects, and sample probes with their journeys."""
        situation = self.situation()
        recent = [
            e
            for e in self.ledger.recent(self.now_ns - EVIDENCE_NS - 10 * SECOND)
            if e.first_ns > self.now_ns - EVIDENCE_NS
        ]
        culprit = {("node", n) for n in finding.nodes}
        if finding.subject_type != "node":
            culprit |= {(finding.subject_type, finding.subject)}
        if finding.subject_type == "vip":
            culprit |= {("vip", self.region.vips[v].name) for v in finding.vips if v in self.region.vips}
        ranking = localize.rank(recent, situation, min(finding.horizon_ns, self.now_ns - SECOND))
        if finding.family in ("node_down", "cluster_down"):
            collapsed = localize.of_collapse((finding.subject_type, finding.subject), finding.evidence)
            if collapsed is not None:
                ranking = sorted([*ranking, collapsed], key=lambda s: -s.score)
        numbers = dict(finding.evidence)
        numbers["localization"] = localize.summary(ranking, culprit)
        samples = []
        for probe_id in finding.samples[:MAX_SAMPLES]:
            entry = self.ledger.get(probe_id)
            if entry is not None:
                samples.append(journey.of(entry))
        return numbers, samples

    def _notify(self, now: Moment) -> list[str]:
        alerts = [
            alert.of(i, self._url, self._grafana)
            for i in self.book.incidents.values()
            if i.is_open or now.wall_ns - i.closed_ns < ALERT_MEMORY_NS
        ]
        return self.notifier.step(alerts, list(self.silences.values()), now)

    def watched(self) -> set[str]:
        """The migrations that open incidents wait for."""
        found = (i.remedy.get("migration_id") for i in self.book.open_ones() if i.remedy.get("status") == "posted")
        return {str(x) for x in found if x}

    def take_answer(self, answer: remedy.Answer, now_ns: int) -> None:
        """Control has answered a request, or could not be reached."""
        self.remedy.answered(answer, now_ns)
        self.store.commit()

    # silences

    def add_silence(self, wanted: NewSilence, now_ns: int) -> Silence:
        """Keep a silence; ValueError when it would never hold."""
        starts = wanted.starts_ns if wanted.starts_ns is not None else now_ns
        if wanted.ends_ns <= max(starts, now_ns):
            raise ValueError("ends_ns: expected a time after now and after starts_ns")
        silence = Silence(
            id=f"sil-{secrets.token_hex(6)}",
            matchers=wanted.matchers,
            starts_ns=starts,
            ends_ns=wanted.ends_ns,
            created_by=wanted.created_by,
            comment=wanted.comment,
            created_ns=now_ns,
        )
        self._keep(silence)
        return silence

    def end_silence(self, identity: str, now_ns: int) -> Silence:
        """End a silence now; KeyError when there is none of that id."""
        old = self.silences[identity]
        silence = old.model_copy(update={"ends_ns": min(old.ends_ns, now_ns)})
        self._keep(silence)
        return silence

    def _keep(self, silence: Silence) -> None:
        self.silences[silence.id] = silence
        self.store.save_silence(silence.id, silence.model_dump())
        self.store.commit()
