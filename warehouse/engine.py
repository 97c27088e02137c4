"""The embedded engine (chDB): one process may open a path, any number of handles may work in it at once."""

from __future__ import annotations

import queue
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import chdb

# chDB's default database is an overlay over the file system: a table name there is a path. Nobody gets it.
_HIDDEN_DATABASE = "default"
# The machine belongs to the gateways: few threads, and small pools for merges.
_THREADS = 2
_OPTIONS = "background_pool_size=2&background_schedule_pool_size=2&background_common_pool_size=1"
_SETTING = re.compile(r"^[A-Za-z_][A-Za-z0-9_]*$")


class EngineError(Exception):
    """The engine refused a statement. `code`: ClickHouse's error number (0 when it gave none)."""

    def __init__(self, message: str) -> None:
        at = message.find("Code: ")
        self.message = message[at:].strip() if at >= 0 else message.strip()
        found = re.match(r"Code: (\d+)", self.message)
        self.code = int(found[1]) if found else 0
        super().__init__(self.message)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a statement gave."""

    data: bytes
    rows: int
    bytes_read: int
    elapsed_s: float


def quoted(value: str) -> str:
    """A SQL string literal."""
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def settings_list(settings: Mapping[str, str]) -> str:
    """`a = '1', b = '2'`; EngineError for a name that is no identifier."""
    for name in settings:
        if not _SETTING.match(name):
            raise EngineError(f"Code: 115. DB::Exception: Unknown setting {name!r}. (UNKNOWN_SETTING)")
    return ", ".join(f"{name} = {quoted(value)}" for name, value in settings.items())


def _connect(target: str) -> Any:
    return chdb.connect(target)  # type: ignore[no-untyped-call]


class Engine:
    """The engine at `path` (made when missing). Close it; a second process on the same path is refused by chDB.

    Every kind of work has handles of its own, so that slow dashboards do not hold up inserts. `reader_seconds`,
    `reader_bytes`: what a reader's statement may take [s] and hold in memory [bytes] before it is ended.
    """

    def __init__(
        self,
        path: Path,
        database: str,
        *,
        readers: int = 2,
        writers: int = 2,
        inserters: int = 2,
        reader_seconds: float = 20.0,
        reader_bytes: int = 1 << 30,
    ) -> None:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._temporary = Path(tempfile.mkdtemp(prefix="insert-", dir=path.parent))
        self._all: list[Any] = []
        try:
            first = _connect(f"{path.resolve()}?{_OPTIONS}")
        except RuntimeError as error:
            self._temporary.rmdir()
            raise EngineError(str(error)) from None
        self._all.append(first)
        # No pool: it is free when all others are busy.
        self._first = first
        self._run(first, f"CREATE DATABASE IF NOT EXISTS {database} ENGINE = Atomic")
        common = {"max_threads": str(_THREADS), "async_insert": "0", "insert_deduplicate": "1"}
        reading = {
            "max_execution_time": str(reader_seconds),
            "max_memory_usage": str(reader_bytes),
            # No writes, and this setting itself cannot be changed back. The guard sees to the other settings.
            "readonly": "2",
        }
        self._base = {"writer": common, "inserter": common, "reader": common | reading}
        self._pools: dict[str, queue.SimpleQueue[Any]] = {}
        self.handles = {"writer": writers, "inserter": inserters, "reader": readers}
        for kind, count in self.handles.items():
            pool = self._pools[kind] = queue.SimpleQueue()
            for _ in range(count):
                handle = _connect(str(path.resolve()))
                self._all.append(handle)
                self._run(handle, f"USE {database}")
                self._run(handle, f"SET {settings_list(self._base[kind])}")
                pool.put(handle)
        # A handle can only be opened while this database is there, so it goes last.
        self._run(first, f"DROP DATABASE IF EXISTS {_HIDDEN_DATABASE}")

    def close(self) -> None:
        """Close every handle."""
        for handle in reversed(self._all):
            handle.close()
        for left in self._temporary.glob("*"):
            left.unlink()
        self._temporary.rmdir()

    def end_reads(self) -> None:
        """End every SELECT that runs now; whoever asked gets ClickHouse's QUERY_WAS_CANCELLED."""
        self._run(self._first, "KILL QUERY WHERE query_kind = 'Select' ASYNC")

    # what warehouse.migrate needs

    def command(self, statement: str) -> None:
        """Execute a statement as the writer."""
        self.execute(statement, "TabSeparated")

    def rows(self, query: str) -> list[Sequence[Any]]:
        """The rows of a query, every value as text."""
        text = self.execute(query, "TabSeparated").data.decode()
        return [line.split("\t") for line in text.splitlines()]

    # what the server needs

    def execute(
        self,
        statement: str,
        output: str,
        settings: Mapping[str, str] | None = None,
        parameters: Mapping[str, str] | None = None,
        *,
        reader: bool = False,
    ) -> Answer:
        """Run one statement; `output` is the format when it names none. EngineError."""
        kind = "reader" if reader else "writer"
        with self._handle(kind) as handle, self._with_settings(kind, handle, settings or {}):
            return self._run(handle, statement, output, parameters)

    def insert(self, target: str, form: str, body: bytes, settings: Mapping[str, str] | None = None) -> Answer:
        """`INSERT INTO target FORMAT form` with `body` as its data. EngineError."""
        clause = f" SETTINGS {settings_list(settings)}" if settings else ""
        with tempfile.NamedTemporaryFile(dir=self._temporary, suffix=".data") as file:
            file.write(body)
            file.flush()
            statement = f"INSERT INTO {target} FROM INFILE {quoted(file.name)}{clause} FORMAT {form}"
            with self._handle("inserter") as handle:
                return self._run(handle, statement)

    @contextmanager
    def _handle(self, kind: str) -> Iterator[Any]:
        handle = self._pools[kind].get()
        try:
            yield handle
        finally:
            self._pools[kind].put(handle)

    @contextmanager
    def _with_settings(self, kind: str, handle: Any, settings: Mapping[str, str]) -> Iterator[None]:
        if not settings:
            yield
            return
        change = settings_list(settings)
        try:
            self._run(handle, f"SET {change}")
            yield
        finally:
            # To ask the engine for the values before would cost more than most queries do.
            base = self._base[kind]
            for name in settings:
                with suppress(EngineError):  # a setting that does not exist was not changed either
                    self._run(handle, f"SET {name} = {quoted(base[name]) if name in base else 'DEFAULT'}")

    @staticmethod
    def _run(
        handle: Any, statement: str, output: str = "TabSeparated", parameters: Mapping[str, str] | None = None
    ) -> Answer:
        try:
            result = handle.query(statement, output, params=dict(parameters or {}))
        except Exception as error:  # chDB raises RuntimeError for whatever the engine says
            raise EngineError(str(error)) from None
        return Answer(result.bytes() or b"", result.rows_read(), result.bytes_read(), result.elapsed())
