"""From the spool to ClickHouse: when to try which batch, and what to insert of it."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable

import pyarrow as pa

from collector import columns, spool

# insert(table, rows, token)
Insert = Callable[[str, pa.Table, str], None]


def deliver(data: bytes, insert: Insert) -> None:
    """Insert all tables of a spool file. Repeating it is harmless: each insert carries the file's own token."""
    token = spool.token_of(data)
    for table, rows in columns.tables(spool.decode(data), token):
        insert(table, rows, f"{token}-{table}")


class Schedule:
    """Which pending batch to try next, and when. Tries for ever; delays double up to a bound and are jittered."""

    def __init__(self, rng: random.Random, first_ns: int = 200_000_000, last_ns: int = 5_000_000_000) -> None:
        self._rng = rng
        self._first, self._last = first_ns, last_ns
        self._failures = 0
        self._not_before = 0
        self._held: dict[str, tuple[int, int]] = {}  # refused: tries, not before

    def next(self, pending: Iterable[str], now_ns: int) -> str | None:
        """The oldest batch that may be tried now; a refused one waits while others pass it."""
        if now_ns < self._not_before:
            return None
        return next((name for name in pending if self._held.get(name, (0, 0))[1] <= now_ns), None)

    def wake(self, pending: Iterable[str], now_ns: int) -> int | None:
        """When `next` may first give something; None when nothing is pending."""
        times = [max(self._not_before, self._held.get(name, (0, 0))[1], now_ns) for name in pending]
        return min(times, default=None)

    def shipped(self, name: str) -> None:
        """It went well."""
        self._failures = 0
        self._not_before = 0
        self._held.pop(name, None)

    def unavailable(self, now_ns: int) -> None:
        """Nothing can be shipped for now."""
        self._not_before = now_ns + self._delay(self._failures)
        self._failures += 1

    def refused(self, name: str, now_ns: int) -> None:
        """This batch was refused; the next one may be tried, after a pause that grows if all are refused."""
        tries = self._held.get(name, (0, 0))[0]
        self._held[name] = tries + 1, now_ns + 6 * self._delay(tries)
        self.unavailable(now_ns)

    def _delay(self, failures: int) -> int:
        bound = min(self._last, self._first << min(failures, 16))
        return round(bound * (0.5 + self._rng.random() / 2))
