"""How everyone but the owner speaks to a warehouse: clickhouse-connect over HTTP, embedded engine or server alike."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from service.settings import read_text
from warehouse.settings import WarehouseSettings

if TYPE_CHECKING:
    import pandas
    import pyarrow
    from clickhouse_connect.driver.client import Client


class Unavailable(Exception):
    """The warehouse could not be reached or did not answer in time: what was asked may or may not have happened."""


class Refused(Exception):
    """The warehouse answered that it does not do this; the message is its own."""


def connect(settings: WarehouseSettings) -> Client:
    """A client; Unavailable or Refused. The password is read from its file now."""
    import clickhouse_connect
    from clickhouse_connect.driver import exceptions

    url = urlsplit(settings.url)
    try:
        return clickhouse_connect.get_client(
            host=url.hostname or "127.0.0.1",
            port=url.port or (8443 if url.scheme == "https" else 8123),
            secure=url.scheme == "https",
            username=settings.user,
            password=read_text(settings.password_file).strip(),
            database=settings.database,
            connect_timeout=2,
            send_receive_timeout=settings.timeout_s,
            autogenerate_session_id=False,
            query_retries=0,
        )
    except exceptions.OperationalError as error:
        raise Unavailable(str(error)) from error
    except exceptions.Error as error:
        raise Refused(str(error)) from error


def once(token: str | None) -> dict[str, Any]:
    """The settings of an insert that is answered when its rows are in, and that a token makes harmless to repeat."""
    settings: dict[str, Any] = {"async_insert": 0}
    if token:
        settings |= {
            "insert_deduplicate": 1,
            "insert_deduplication_token": token,
            # The roll-ups are to look at the token too; an older server must be told.
            "deduplicate_blocks_in_dependent_materialized_views": 1,
        }
    return settings


class Connection:
    """A client that is opened when it is first needed, and again after a failure."""

    def __init__(self, settings: WarehouseSettings) -> None:
        self._settings = settings
        self._client: Client | None = None

    def close(self) -> None:
        """Close the client, if there is one."""
        client, self._client = self._client, None
        if client is not None:
            client.close()

    def query(self, sql: str, parameters: dict[str, Any] | None = None) -> list[tuple[Any, ...]]:
        """The rows of a query; Unavailable, Refused."""
        return [tuple(row) for row in self._call("query", sql, parameters=parameters or {}).result_rows]

    def frame(self, sql: str, parameters: dict[str, Any] | None = None) -> pandas.DataFrame:
        """The rows of a query as a pandas table; Unavailable, Refused."""
        found: pandas.DataFrame = self._call("query_df", sql, parameters=parameters or {})
        return found

    def insert(self, table: str, columns: list[str], rows: list[list[Any]], token: str | None = None) -> None:
        """Insert rows, once per token when one is given; Unavailable, Refused."""
        self._call("insert", table, rows, column_names=columns, settings=once(token))

    def insert_arrow(self, table: str, rows: pyarrow.Table, token: str | None = None) -> None:
        """Insert an Arrow table (addresses: 16-byte binary), once per token; Unavailable, Refused."""
        self._call("insert_arrow", table, rows, settings=once(token))

    def _call(self, name: str, *arguments: Any, **options: Any) -> Any:
        from clickhouse_connect.driver import exceptions

        if self._client is None:
            self._client = connect(self._settings)
        try:
            return getattr(self._client, name)(*arguments, **options)
        except exceptions.OperationalError as error:
            self.close()
            raise Unavailable(str(error)) from error
        except exceptions.Error as error:
            raise Refused(str(error)) from error
        except Exception as error:  # urllib3 lets its own errors through while it reads an answer
            self.close()
            raise Unavailable(f"{type(error).__name__}: {error}") from error
