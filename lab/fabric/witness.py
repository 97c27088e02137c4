"""A prober in the fabric: the product's own engine and its tap, on a simulated link."""

from __future__ import annotations

import random
from collections.abc import Callable

from contract.fleet import Fleet
from lab.fabric.engine import Fabric
from prober.engine import Engine
from prober.judge import Closed
from prober.send import Link
from prober.settings import Limits


class Witness:
    """A station with one link (port 0) that probes. `record`: takes every closed probe, False when it could not."""

    def __init__(
        self,
        fabric: Fabric,
        name: str,
        key: bytes,
        mac: bytes,
        next_hop: bytes,
        record: Callable[[Closed], bool],
        limits: Limits | None = None,
    ) -> None:
        self.name = name
        self._fabric = fabric
        self._planned: int | None = None
        # Monotonic and wall clock are one here: simulated time never jumps.
        self.engine = Engine(
            name,
            key,
            limits or Limits(),
            clock=lambda: (fabric.now, fabric.now),
            transmit=self._transmit,
            record=record,
            rng=random.Random(fabric.random.getrandbits(64)),  # noqa: S311 - nonces need to differ, not to be secret
        )
        self.engine.link = Link(mac, next_hop, next_hop)
        self._mac = mac

    def set_fleet(self, fleet: Fleet) -> None:
        """Probe this fleet from now on. DocumentError when it does not name this prober."""
        self.engine.set_fleet(fleet)
        self._plan(self.engine.turn())

    def receive(self, port: int, frame: bytes) -> None:
        """Take a frame; what is no answer to a probe is counted by the engine."""
        if frame[:6] != self._mac:
            return self._fabric.drop("prober_wrong_mac")
        self._fabric.deliver()
        self._plan(self.engine.turn([(frame, self._fabric.now)]))
        return None

    def _transmit(self, frame: bytes) -> bool:
        self._fabric.originate(self, 0, frame)
        return True

    def _plan(self, due: int | None) -> None:
        if due is not None and (self._planned is None or due < self._planned):
            self._planned = due
            self._fabric.at(due, self._turn, due)

    def _turn(self, planned: int) -> None:
        if self._planned == planned:
            self._planned = None
            self._plan(self.engine.turn())
