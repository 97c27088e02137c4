"""The loop of the speaker: look, decide, tell BIRD, say how it stands."""

from __future__ import annotations

import json
import os
import select
import time
from pathlib import Path
from typing import Any

from gateway.speaker import bird_conf
from gateway.speaker.birdc import Birdc, BirdError
from gateway.speaker.daemon import Daemon
from gateway.speaker.liveness import SILENT, Decision, Liveness
from gateway.speaker.log import say
from gateway.speaker.settings import SpeakerSettings
from gateway.speaker.watch import NodeWatch

RESTART_NS = 1_000_000_000
RETRY_NS = 300_000_000
STARTING_NS = 5_000_000_000


class Speaker:
    """One node's speaker. `step` is one turn of it; `run` turns until told to stop."""

    def __init__(self, settings: SpeakerSettings) -> None:
        self._settings = settings
        self._watch = NodeWatch(settings.routes_file)
        self._liveness = Liveness(settings.stale_ms * 1_000_000)
        self._daemon = Daemon(settings)
        self._birdc = Birdc(settings.control_socket)
        self._wanted: Decision = SILENT
        # What BIRD has been told and has taken.
        self._told: Decision | None = None
        self._since_ns = time.time_ns()
        self._sessions: dict[str, str] = {s.name: "down" for s in settings.session}
        self._start_at = 0
        self._tell_at = 0
        self._asked_at = -(10**18)
        self._started_at = 0
        self._ready = False
        self._failures = 0

    def run(self, wake: int) -> None:
        """Turn until the descriptor `wake` is readable, then withdraw, stop BIRD and return."""
        try:
            while not self._wait(wake):
                self.step(time.monotonic_ns())
        finally:
            self.stop()

    def stop(self) -> None:
        """Withdraw everything, end BIRD, say so."""
        self._wanted = Decision(False, "the speaker has been asked to stop")
        if self._daemon.running and self._ready:
            try:
                self._configure(self._wanted)
            except (BirdError, OSError) as error:
                say("warning", "cannot withdraw in good order", error=str(error))
        self._daemon.stop()
        self._told = None
        self._sessions = {s.name: "down" for s in self._settings.session}
        self._write_status()
        self._watch.close()

    def step(self, now_ns: int) -> None:
        """One turn at `now_ns` (monotonic): takes some tens of microseconds when nothing has changed."""
        decision = self._liveness.decide(self._watch.look(), now_ns)
        changed = decision != self._wanted
        if decision.alive != self._wanted.alive:
            say("info" if decision.alive else "warning", "forwarding", alive=decision.alive, why=decision.reason)
        self._wanted = decision
        self._supervise(now_ns)
        if self._ready and now_ns >= self._tell_at and (self._told is None or not decision.same_routes(self._told)):
            changed |= self._tell(now_ns)
        elif self._ready and self._told is not None:
            # Same routes, perhaps of a later epoch.
            self._told = decision
        if changed or now_ns - self._asked_at >= self._status_ns():
            self._ask(now_ns)
            self._write_status()

    def _status_ns(self) -> int:
        # Someone may be waiting for a session that is on its way.
        up = all(state == "Established" for state in self._sessions.values())
        return (self._settings.status_ms if up else min(500, self._settings.status_ms)) * 1_000_000

    def _wait(self, wake: int) -> bool:
        poll = select.poll()
        poll.register(wake, select.POLLIN)
        # The end of either process is an event, not something to find out later.
        if self._watch.pidfd is not None and self._wanted.alive:
            poll.register(self._watch.pidfd, select.POLLIN)
        if self._daemon.pidfd is not None:
            poll.register(self._daemon.pidfd, select.POLLIN)
        return any(fd == wake for fd, _ in poll.poll(self._settings.poll_ms))

    def _supervise(self, now_ns: int) -> None:
        if not self._daemon.running:
            if self._ready or self._told is not None:
                say("error", "BIRD has ended")
            self._ready, self._told = False, None
            if now_ns < self._start_at:
                return
            self._start_at = now_ns + RESTART_NS
            # It starts without routes: they are told once it answers, like any other change.
            _write(self._settings.bird_conf, bird_conf.render(self._settings, SILENT))
            try:
                self._daemon.start()
            except OSError as error:
                say("error", "cannot start BIRD", program=self._settings.bird, error=str(error))
                return
            self._started_at = now_ns
        if not self._ready:
            try:
                self._birdc.command("show status")
                self._ready = True
            except BirdError as error:
                if now_ns - self._started_at > STARTING_NS:
                    say("error", "BIRD does not answer; starting it again", error=str(error))
                    self._daemon.kill()

    def _tell(self, now_ns: int) -> bool:
        decision = self._wanted
        try:
            self._configure(decision)
        except (BirdError, OSError) as error:
            self._failures += 1
            say("error", "BIRD does not take the routes", error=str(error), failures=self._failures)
            self._tell_at = now_ns + RETRY_NS
            if not decision.alive or self._failures >= 3:
                # What must be withdrawn is withdrawn: without BIRD there is no session.
                self._daemon.kill()
            return False
        self._failures = 0
        self._told = decision
        self._since_ns = time.time_ns()
        for line in bird_conf.unannounceable(self._settings, decision):
            say("warning", "no session can carry a route", route=line)
        return True

    def _configure(self, decision: Decision) -> None:
        _write(self._settings.bird_conf, bird_conf.render(self._settings, decision))
        self._birdc.configure()

    def _ask(self, now_ns: int) -> None:
        self._asked_at = now_ns
        states: dict[str, str] = {}
        if self._ready:
            try:
                states = self._birdc.protocols()
            except BirdError as error:
                say("warning", "BIRD does not tell its sessions", error=str(error))
        fresh = {s.name: states.get(bird_conf.protocol_name(s), "down") for s in self._settings.session}
        if fresh != self._sessions:
            say("info", "sessions", **fresh)
        self._sessions = fresh

    def status(self) -> dict[str, Any]:
        """As speaker.json. Announced is what BIRD has taken and an established session carries."""
        told = self._told or SILENT
        up = {(s.side, s.family) for s in self._settings.session if self._sessions[s.name] == "Established"}
        refused = list(self._watch.routes.refused) if self._watch.routes is not None else []

        def carried(side: Any) -> list[str]:
            return [p for p in told.of(side) if (side, 6 if ":" in p else 4) in up]

        return {
            "node": self._settings.node,
            "pid": os.getpid(),
            "epoch": told.epoch,
            "announced": carried("fabric"),
            "edge_announced": carried("edge"),
            "forwarding_alive": self._wanted.alive,
            "reason": self._watch.problem or self._wanted.reason,
            "sessions": self._sessions,
            "refused": refused + bird_conf.unannounceable(self._settings, told),
            "since_ns": self._since_ns,
            "written_ns": time.time_ns(),
        }

    def _write_status(self) -> None:
        try:
            _write(self._settings.status_file, json.dumps(self.status()))
        except OSError as error:
            say("error", "cannot write the status", path=str(self._settings.status_file), error=str(error))


def _write(path: Path, text: str) -> None:
    """Replace a file whole. Not synced: a speaker that starts after a crash of the machine writes its own."""
    fresh = path.with_name(f".{path.name}.new")
    fresh.write_text(text)
    fresh.replace(path)
