"""The colour of each probe: a nonce that no other probe of this prober has, and the cookie made of it."""

from __future__ import annotations

import random

from contract import colour
from contract.colour import Address

_NONCES = 1 << colour.NONCE_BITS


class Exhausted(RuntimeError):
    """All nonces of this epoch are in use with this source address and port."""


class Marker:
    """Hands out initial sequence numbers so that (source, source port, ISN) is used once in an epoch."""

    def __init__(self, key: bytes, rng: random.Random) -> None:
        self._key = key
        self._rng = rng
        self._epoch = -1
        self._next = 0
        self._used: set[tuple[int, int, int]] = set()

    def isn(self, source: Address, source_port: int, wall_ns: int) -> int:
        """The ISN of a probe sent now. Exhausted when its source end has used up the epoch's nonces."""
        epoch = colour.epoch_of(wall_ns)
        if epoch != self._epoch:
            # A random start, so that two probers (or two lives of one) rarely walk the nonces in step.
            self._epoch, self._next = epoch, self._rng.randrange(_NONCES)
            self._used.clear()
        end = int(source) & 0xFFFF, source_port
        for _ in range(_NONCES):
            nonce, self._next = self._next, (self._next + 1) % _NONCES
            if (*end, nonce) not in self._used:
                self._used.add((*end, nonce))
                return colour.cookie(self._key, nonce, epoch)
        raise Exhausted(f"source {source} port {source_port}: all {_NONCES} nonces of epoch {epoch} are used")
