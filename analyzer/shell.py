"""The thin shell around the engine: reads, asks, sends. One loop, one look a second."""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import structlog

from analyzer import mirror
from analyzer.alerting.deliver import Delivery
from analyzer.alerting.receivers import Receiver
from analyzer.alerting.sign import headers
from analyzer.control_client import ControlClient
from analyzer.engine import Engine
from analyzer.region import Region
from analyzer.rows import Rows
from analyzer.settings import Settings
from analyzer.store import open_store
from analyzer.telemetry import Telemetry
from contract.documents import DocumentError, check
from contract.fleet import Fleet
from service import settings as files
from warehouse.client import Refused, Unavailable

log = structlog.get_logger()


class Shell:
    """Owns the engine and everything that touches the world. `run` until `stop` is set."""

    def __init__(self, settings: Settings) -> None:
        """Reads the fleet document and opens the store; DocumentError, StoreError, OSError."""
        self.settings = settings
        fleet = files.load(settings.fleet, Fleet, "TGW_FLEET_")
        files.read_text(settings.warehouse.password_file)
        self.store, damaged = open_store(settings.state_dir / "analyzer.sqlite")
        self._fleet_digest = ""
        region = Region(fleet, self._number_of(fleet))
        listen = settings.listen
        url = settings.external_url or f"http://{listen.host}:{listen.port}"
        self.engine = Engine(region, self.store, time.time_ns(), settings.receivers, url, settings.keep)
        self.stop = asyncio.Event()
        self.errors: dict[str, str] = {"the store": damaged}
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
        self._http = httpx.AsyncClient(trust_env=False)
        self._tasks: set[asyncio.Task[None]] = set()

    def _number_of(self, fleet: Fleet) -> int:
        """The number of this document: rises with every change, also over restarts and the loss of the store."""
        digest = hashlib.sha256(fleet.model_dump_json().encode()).hexdigest()
        kept = self.store.get("fleet", {})
        number = kept.get("number")
        self._fleet_digest = digest
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
            await self._http.aclose()
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
            look = self.engine.look(time.time_ns(), rows, view)
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
            for delivery in self.engine.outbox.due(time.time_ns()):
                task = asyncio.create_task(self._send(delivery))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
            await asyncio.sleep(0.2)

    async def _send(self, delivery: Delivery) -> None:
        receiver = self._receivers.get(delivery.receiver)
        status, error = 0, "no such receiver in the settings any more"
        if receiver is not None:
            status, error = await self._post(receiver, delivery)
        state = self.engine.outbox.done(delivery, status, error, time.time_ns())
        self.store.commit()
        if state == "delivered":
            log.info("notified", receiver=delivery.receiver, id=delivery.id, attempts=delivery.attempts + 1)
        else:
            log.warning(
                "notification not taken", receiver=delivery.receiver, id=delivery.id, status=status, error=error
            )

    async def _post(self, receiver: Receiver, delivery: Delivery) -> tuple[int, str]:
        try:
            signed = headers(receiver.signing_secret(), delivery.id, int(time.time()), delivery.body)
            # The whole attempt has an end, and the answer's body, which may have none, is not read.
            async with (
                asyncio.timeout(receiver.timeout_s),
                self._http.stream(
                    "POST",
                    str(receiver.url),
                    content=delivery.body,
                    headers={"content-type": "application/json", **signed},
                    timeout=receiver.timeout_s,
                ) as answer,
            ):
                return answer.status_code, ""
        except (httpx.HTTPError, OSError, ValueError) as error:
            return 0, f"{type(error).__name__}: {error}"

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
