"""The thin shell around the engine: reads, asks, sends. One loop, one look a second."""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import structlog

from analyzer import mirror
from analyzer.alerting.answer import Answer
from analyzer.alerting.deliver import LONGEST_WAIT_S, Delivery
from analyzer.alerting.moment import Moment
from analyzer.alerting.send import Sender, send_test
from analyzer.control_client import ControlClient
from analyzer.engine import Engine
from analyzer.region import Region
from analyzer.rows import Rows
from analyzer.settings import Settings
from analyzer.store import open_store
from analyzer.telemetry import Telemetry
from contract.documents import DocumentError, check, stored
from contract.fleet import Fleet
from service import settings as files
from warehouse.client import Refused, Unavailable

log = structlog.get_logger()


class Shell:
    """Owns the engine and everything that touches the world. `run` until `stop` is set."""

    def __init__(self, settings: Settings) -> None:
        """Reads the fleet document and opens the store; DocumentError, StoreError, OSError."""
        self.settings = settings
        files.read_text(settings.warehouse.password_file)
        self.store, damaged = open_store(settings.state_dir / "analyzer.sqlite")
        self._fleet_digest = ""
        try:
            fleet, refused = self._first_fleet(settings.fleet)
        except DocumentError:
            self.store.close()
            raise
        region = Region(fleet, self._number_of(fleet))
        listen = settings.listen
        url = settings.external_url or f"http://{listen.host}:{listen.port}"
        now = self._moment()
        grafana = str(settings.grafana_url or "")
        self.engine = Engine(
            region, self.store, now.wall_ns, settings.receivers, url, settings.keep, now.mono_ns, grafana
        )
        self.stop = asyncio.Event()
        self.errors: dict[str, str] = {"the store": damaged, "the fleet file": refused}
        self.last_look_s = 0.0
        self._receivers = {r.name: r for r in settings.receivers}
        self._reader = Telemetry(settings.warehouse)
        self._writer = Telemetry(settings.warehouse)
        self._asker = Telemetry(settings.warehouse)
        # One thread each: a client serves one thread, and a slow write must not hold up reading.
        self._read_pool = ThreadPoolExecutor(1, "reader")
        self._write_pool = ThreadPoolExecutor(1, "writer")
        self._ask_pool = ThreadPoolExecutor(1, "asker")
        self._control = ControlClient(
            str(settings.control.url), settings.control.token_file, settings.control.timeout_s
        )
        self.sender = Sender()
        self._tasks: set[asyncio.Task[None]] = set()

    def _first_fleet(self, path: Path) -> tuple[Fleet, str]:
        """The document of the settings and ""; when it is refused, the last right one and why. DocumentError: none.

        After an upgrade whose rules the file breaks the analyzer must see all the same.
        """
        try:
            return files.load(path, Fleet, "TGW_FLEET_"), ""
        except DocumentError as error:
            try:
                fleet, _ = stored(str(self.store.get("fleet_document", "")), Fleet, "the stored fleet document")
            except DocumentError:
                raise error from None
            log.error("the fleet file is refused; the last right document is used", problem=str(error))
            return fleet, str(error)

    def _number_of(self, fleet: Fleet) -> int:
        """The number of this document: rises with every change, also over restarts and the loss of the store."""
        digest = hashlib.sha256(fleet.model_dump_json().encode()).hexdigest()
        kept = self.store.get("fleet", {})
        number = kept.get("number")
        self._fleet_digest = digest
        if kept.get("digest") != digest or not self.store.get("fleet_document", ""):
            self.store.put("fleet_document", fleet.model_dump_json())
            self.store.commit()
        if kept.get("digest") != digest or not isinstance(number, int):
            number = self._renumber()
        return number

    def _renumber(self) -> int:
        number = self.store.next_revision()
        self.store.put("fleet", {"digest": self._fleet_digest, "number": number})
        self.store.commit()
        return number

    async def run(self) -> None:
        """Look once a second until `stop` is set."""
        loops = [self._watch(), self._deliver(), self._mirror(), self._follow_fleet()]
        tasks = [asyncio.create_task(x) for x in loops]
        stopping = asyncio.create_task(self._stopped())
        try:
            await asyncio.wait([stopping, *tasks], return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                if task.done() and task.exception() is not None:
                    raise task.exception() or RuntimeError("a loop ended")
        finally:
            for task in [stopping, *tasks, *self._tasks]:
                task.cancel()
            await asyncio.gather(stopping, *tasks, *self._tasks, return_exceptions=True)
            await self.sender.aclose()
            await self._control.aclose()
            for pool in (self._read_pool, self._write_pool, self._ask_pool):
                pool.shutdown(wait=False, cancel_futures=True)
            self.store.close()

    async def _stopped(self) -> None:
        await self.stop.wait()

    def _note(self, what: str, problem: str) -> None:
        """Log a problem once, and its end once."""
        if problem and not self.errors.get(what):
            log.warning(f"{what} fails", problem=problem)
        elif not problem and self.errors.get(what):
            log.info(f"{what} works again")
        self.errors[what] = problem

    async def _watch(self) -> None:
        while True:
            began = time.monotonic()
            rows, view = await asyncio.gather(self._read(), self._control.view(self.engine.watched()))
            self._note("control", self._control.error)
            now = self._moment()
            look = self.engine.look(now.wall_ns, rows, view, now.mono_ns)
            self._note("writing the store", self.store.problem)
            self._note("reading the store", self.store.set_aside_words())
            for incident in look.opened:
                log.warning("incident opened", id=incident.id, kind=incident.kind, summary=incident.summary)
            for incident in look.mitigated:
                log.warning("incident mitigated", id=incident.id, subject=incident.subject, standing=incident.standing)
            for incident in look.closed:
                log.info("incident closed", id=incident.id, kind=incident.kind, subject=incident.subject)
            for request in look.requests:
                answer = await self._control.send(request)
                log.info("asked control", request=type(request).__name__, status=answer.status, error=answer.error)
                self.engine.take_answer(answer, time.time_ns())
            self.last_look_s = time.monotonic() - began
            await asyncio.sleep(max(0.05, self.settings.intervals.look_s - self.last_look_s))

    async def _read(self) -> Rows | None:
        loop = asyncio.get_running_loop()
        try:
            rows = await loop.run_in_executor(self._read_pool, self._reader.read, self.engine.read_from_ns)
        except (Unavailable, Refused, DocumentError) as error:  # the last: its password file is gone
            self._note("reading the warehouse", str(error))
            return None
        self._note("reading the warehouse", "")
        return rows

    async def journey(self, probe_id: int) -> Rows:
        """Everything the warehouse knows of one probe; Unavailable, Refused."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._ask_pool, self._asker.journey, probe_id)

    # notifications

    async def _deliver(self) -> None:
        while True:
            try:
                for delivery in self.engine.outbox.due(self._moment()):
                    task = asyncio.create_task(self._send(delivery))
                    self._tasks.add(task)
                    task.add_done_callback(self._tasks.discard)
                self._note("telling people", "; ".join(f"{n}: {why}" for n, why in self.engine.gone.items()))
            except Exception as error:  # whatever it is, everybody else is still to be told
                log.exception("what is due could not be worked out")
                self._note("telling people", f"{type(error).__name__}: {error}")
            await asyncio.sleep(0.2)

    @staticmethod
    def _moment() -> Moment:
        return Moment(time.time_ns(), time.monotonic_ns())

    async def _send(self, delivery: Delivery) -> None:
        """One attempt. Whatever goes wrong in it, the delivery is handed back and is tried again."""
        try:
            answer = await self.sender.send(self._receivers[delivery.receiver], delivery.notice)
        except Exception as error:  # a fault of ours in one receiver
            log.exception("sending failed", receiver=delivery.receiver)
            answer = Answer("later", error=f"a fault in sending: {type(error).__name__}")
        try:
            state = self.engine.outbox.done(delivery, answer, self._moment())
            self.store.commit()
        except Exception:  # the store's fault, or one of ours: rather twice than never, but not at once
            log.exception("what came of a notification could not be written down", receiver=delivery.receiver)
            delivery.attempt.due = self._moment().after(LONGEST_WAIT_S)
            return
        finally:
            delivery.attempt.under_way = False
        if state == "delivered":
            log.info("notified", receiver=delivery.receiver, id=delivery.id, tries=delivery.tries + 1)
        else:
            log.warning(
                "notification not taken", receiver=delivery.receiver, id=delivery.id, state=state,
                status=answer.status, error=answer.error, said=answer.said,
            )  # fmt: skip

    async def send_test(self, name: str) -> list[tuple[str, Answer]]:
        """Send a test notice to a receiver now: what was said to it, and its answer; KeyError for no such receiver."""
        receiver = self._receivers[name]
        region = self.engine.region.fleet.region
        return await send_test(self.sender, receiver, region, self.engine.outbox.url, time.time_ns())

    # the mirror in the warehouse

    async def _mirror(self) -> None:
        named = 0
        above = False
        while True:
            above = above or await self._go_above()
            if not above:
                await asyncio.sleep(1.0)
                continue
            region = self.engine.region
            if named != region.epoch and await self._insert(mirror.names(region, self.store.id)):
                named = region.epoch
            work = mirror.due(self.store)
            if work.inserts and await self._insert(work):
                for key, value in work.remember.items():
                    self.store.put(key, value)
                self.store.commit()
            await asyncio.sleep(1.0)

    async def _go_above(self) -> bool:
        """Number on above whatever the warehouse holds, of this store or of one that was lost; False: not to be had."""
        loop = asyncio.get_running_loop()
        try:
            highest, of_names = await loop.run_in_executor(self._write_pool, self._writer.highest_revisions)
        except (Unavailable, Refused, DocumentError) as error:
            self._note("writing to the warehouse", str(error))
            return False
        self.store.go_above(highest)
        if of_names > self.engine.region.epoch:
            self.engine.exchange_region(Region(self.engine.region.fleet, self._renumber()))
        self.store.commit()
        return True

    async def _insert(self, work: mirror.Work) -> bool:
        loop = asyncio.get_running_loop()
        try:
            for item in work.inserts:
                await loop.run_in_executor(
                    self._write_pool, self._writer.insert, item.table, item.columns, item.rows, item.token
                )
        except (Unavailable, Refused, DocumentError) as error:  # the last: its password file is gone
            self._note("writing to the warehouse", str(error))
            return False
        self._note("writing to the warehouse", "")
        return True

    # the fleet document

    async def _follow_fleet(self) -> None:
        refused = ""
        while True:
            text = await self._control.fleet()
            if text and text != refused:
                try:
                    fleet = check(json.loads(text), Fleet, "control's fleet document")
                except (DocumentError, ValueError) as error:
                    log.error("control's fleet document is not understood", problem=str(error))
                    refused = text
                else:
                    before = self._fleet_digest
                    number = self._number_of(fleet)
                    if self._fleet_digest != before:
                        self.engine.exchange_region(Region(fleet, number))
                        log.info("fleet document changed", number=number)
            await asyncio.sleep(self.settings.intervals.fleet_s)
