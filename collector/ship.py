"""From the spool to ClickHouse: when to try which batch, and the insert itself."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import pyarrow as pa

from collector import columns, spool
from warehouse.client import Refused, Unavailable, connect, once
from warehouse.settings import WarehouseSettings

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

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


class ClickHouse:
    """Inserts over ClickHouse's HTTP protocol. Connects when it must, and again after any failure."""

    def __init__(self, settings: WarehouseSettings) -> None:
        self._settings = settings
        self._client: Client | None = None

    def insert(self, table: str, rows: pa.Table, token: str) -> None:
        """Insert rows once per token. Unavailable, Refused."""
        from clickhouse_connect.driver import exceptions

        if self._client is None:
            self._client = connect(self._settings)
        try:
            self._client.insert_arrow(table, rows, settings=once(token))
        except exceptions.OperationalError as error:
            self._drop()
            raise Unavailable(str(error)) from error
        except exceptions.Error as error:
            raise Refused(str(error)) from error
        except Exception as error:  # urllib3 lets its own errors through while it reads an answer
            self._drop()
            raise Unavailable(f"{type(error).__name__}: {error}") from error

    def _drop(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            client.close()
