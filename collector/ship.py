"""From the spool to ClickHouse: when to try which batch, and the insert itself."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import urlsplit

import pyarrow as pa

from collector import columns, spool
from collector.settings import Warehouse
from service.settings import read_text

# insert(table, rows, token)
Insert = Callable[[str, pa.Table, str], None]


class Unavailable(Exception):
    """The warehouse could not be reached, or did not answer in time. The batch may be in or not."""


class Refused(Exception):
    """The warehouse answered that it does not take this batch as it stands."""


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

    def __init__(self, settings: Warehouse) -> None:
        self._settings = settings
        self._client: Any = None

    def insert(self, table: str, rows: pa.Table, token: str) -> None:
        """Insert rows once per token. Unavailable, Refused."""
        import clickhouse_connect.driver.exceptions as problems

        try:
            client = self._connected()
            settings = {"insert_deduplicate": 1, "insert_deduplication_token": token, "async_insert": 0}
            client.insert_arrow(table, rows, settings=settings)
        except problems.OperationalError as error:
            self._drop()
            raise Unavailable(str(error)) from error
        except problems.Error as error:
            raise Refused(str(error)) from error
        except Exception as error:  # urllib3 lets its own errors through while it reads an answer
            self._drop()
            raise Unavailable(f"{type(error).__name__}: {error}") from error

    def _connected(self) -> Any:
        if self._client is None:
            import clickhouse_connect

            url = urlsplit(self._settings.url)
            self._client = clickhouse_connect.get_client(
                host=url.hostname or "127.0.0.1",
                port=url.port or (8443 if url.scheme == "https" else 8123),
                secure=url.scheme == "https",
                username=self._settings.user,
                # Read each time: a password may be changed under a running collector.
                password=read_text(self._settings.password_file).strip(),
                database=self._settings.database,
                connect_timeout=2,
                send_receive_timeout=self._settings.timeout_s,
                autogenerate_session_id=False,
                query_retries=0,
            )
        return self._client

    def _drop(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            client.close()
