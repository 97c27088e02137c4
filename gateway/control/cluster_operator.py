"""The operator of one cluster: asks its nodes how they are and tells them what to do, until both agree."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import structlog

from gateway.control.node_client import NodeClient, NodeError
from gateway.control.node_link import NodeLink, Wanted

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds between two rounds, in peace and while something moves."""

    poll_s: float = 1.0
    urgent_poll_s: float = 0.2


class ClusterOperator:
    """Reconciles the nodes of one cluster, all at once within `slots`. `changed` is called whenever one has changed."""

    def __init__(
        self,
        cluster: str,
        client: NodeClient,
        slots: asyncio.Semaphore,
        clock: Callable[[], int],
        changed: Callable[[], None],
        new_link: Callable[[str], NodeLink],
        pace: Pace | None = None,
    ) -> None:
        self.cluster = cluster
        self.links: dict[str, NodeLink] = {}
        self.urgent = False
        self._client = client
        self._slots = slots
        self._clock = clock
        self._changed = changed
        self._new_link = new_link
        self._pace = pace or Pace()
        self._kick = asyncio.Event()

    def want(self, wanted: Iterable[Wanted]) -> None:
        """The whole desired set of the cluster: nodes that are not in it are let go."""
        by_name = {w.desired.node: w for w in wanted}
        for name in list(self.links):
            if name not in by_name:
                del self.links[name]
        for name, one in by_name.items():
            link = self.links.setdefault(name, self._new_link(name))
            if link.wanted is None or link.wanted.epoch != one.epoch:
                link.want(one)
                self.kick()

    def kick(self) -> None:
        """Begin the next round now."""
        self._kick.set()

    async def run(self) -> None:
        """Reconcile until cancelled."""
        while True:
            self._kick.clear()
            await self.reconcile()
            try:
                async with asyncio.timeout(self._pace.urgent_poll_s if self.urgent else self._pace.poll_s):
                    await self._kick.wait()
            except TimeoutError:
                continue

    async def reconcile(self) -> None:
        """One round over all nodes: each is asked, and told if need be. Never raises for what a node does."""
        await asyncio.gather(*(self._one(link) for link in list(self.links.values())))

    async def _one(self, link: NodeLink) -> None:
        before = self._shown(link)
        async with self._slots:
            try:
                link.on_status(await self._client.status(link.name), self._clock())
            except NodeError as error:
                link.on_miss(str(error))
        if link.must_push(self._clock()):
            async with self._slots:
                await self._push(link)
        after = self._shown(link)
        if before != after:
            if before[0] != after[0]:
                log.info("node", node=link.name, state=link.reach, before=before[0], error=link.error)
            self._changed()

    async def _push(self, link: NodeLink) -> None:
        wanted = link.wanted
        if wanted is None:
            return
        try:
            await self._client.push(link.name, wanted.tables)
        except NodeError as error:
            link.on_push_failed(str(error), self._clock(), error.refused)
            log.warning("node does not take its desired state", node=link.name, epoch=wanted.epoch, error=str(error))
        else:
            link.on_pushed(wanted)

    def _shown(self, link: NodeLink) -> tuple[object, ...]:
        return (link.reach, link.epoch_acked, link.boot_id, link.ahead_of, link.speaker(self._clock()).announced)
