"""The embedded engine (chDB): one process may open a path, any number of handles may work in it at once.

A handle is a session: what a statement leaves in it (settings, temporary tables, half an answer of one that failed)
would reach the next. So a statement has a handle of its own, which costs a third of a millisecond; only inserts, which
answer nothing and carry their settings with them, share handles, and one that has seen an error is not used again.
"""

from __future__ import annotations

import os
import queue
import re
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# The engine's allocator keeps freed pages for five seconds, by hundreds of megabytes. It reads this when it is loaded.
os.environ.setdefault("JE_MALLOC_CONF", "dirty_decay_ms:500")

import chdb

from warehouse import grants, syntax
from warehouse.outfile import into

# chDB's default database is an overlay over the file system: a table name there is a path. An empty one takes its place
# (a handle can only be opened while there is one of this name).
_OVERLAY = "default"
# The machine belongs to the gateways: few threads, and small pools for merges.
THREADS = 2
_OPTIONS = (
    "background_pool_size=2&background_schedule_pool_size=2&background_common_pool_size=1"
    # What reading fills, and nothing empties again.
    "&mark_cache_size=33554432&primary_index_cache_size=33554432&index_mark_cache_size=8388608&mmap_cache_size=64"
    "&compiled_expression_cache_size=8388608&iceberg_metadata_files_cache_size=0&vector_similarity_index_cache_size=0"
)
_SETTING = re.compile(r"^[A-Za-z_][A-Za-z0-9_]*$")
_NUMBER = re.compile(r"[0-9]{1,20}(\.[0-9]{1,20})?")
_LIMITS = (
    "max_execution_time",
    "output_format_parquet_row_group_size_bytes",
    "output_format_parquet_parallel_encoding",
)
# The setting that carries a statement's mark: a text of no effect while there are no workloads, and nobody's to choose.
_MARK = "workload"
# How long statements that were killed are waited for at the end [s].
_LAST_WAIT_S = 15.0


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
    """What a statement gave. `data`: empty when it went into a pipe."""

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


def lower(limits: Mapping[str, str], asked: Mapping[str, str]) -> dict[str, str]:
    """These limits, each as low as it is asked to be and never higher. Asking for 0, for no limit, changes nothing.

    EngineError for what is no number.
    """
    out = {}
    for name, own in limits.items():
        value = asked.get(name, own)
        if not _NUMBER.fullmatch(value):
            raise EngineError(f"Code: 36. DB::Exception: {name}: expected a number, got {value!r}. (BAD_ARGUMENTS)")
        out[name] = value if 0 < float(value) < float(own) else own
    return out


def _connect(target: str) -> Any:
    return chdb.connect(target)  # type: ignore[no-untyped-call]


class Engine:
    """The engine at `path` (made when missing). Close it; a second process on the same path is refused by chDB.

    `reader_seconds`: what a reader's statement may take before it ends [s].
    """

    def __init__(
        self,
        path: Path,
        database: str,
        *,
        reader_seconds: float = 20.0,
    ) -> None:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._temporary = Path(tempfile.mkdtemp(prefix="insert-", dir=path.parent))
        self._path = str(path.resolve())
        try:
            # Kept for the work of the house: it is free whatever all others do.
            config = grants.write(self._temporary, database)
            self._first = _connect(f"{self._path}?{_OPTIONS}&config-file={config}")
        except RuntimeError as error:
            shutil.rmtree(self._temporary)
            raise EngineError(str(error)) from None
        self._first_lock = threading.Lock()
        self._own(f"DROP DATABASE IF EXISTS {_OVERLAY}")
        self._own(f"CREATE DATABASE {_OVERLAY} ENGINE = Memory")
        self._own(f"CREATE DATABASE IF NOT EXISTS {database} ENGINE = Atomic")
        common = {"database": database, "max_threads": str(THREADS), "async_insert": "0", "insert_deduplicate": "1"}
        reading = {
            "max_execution_time": str(reader_seconds),
            # Behind inserts, where the process may say so (CAP_SYS_NICE); elsewhere the engine leaves it.
            "os_threads_nice_value_query": "15",
            # Small blocks: an answer is written as it comes, and what is on its way takes little.
            "max_block_size": "8192",
            "output_format_parallel_formatting": "0",
            # Parquet holds a group of rows, beside what the engine counts.
            "output_format_parquet_parallel_encoding": "0",
            "output_format_parquet_row_group_size_bytes": str(8 << 20),
            # No writes, and this setting itself cannot be changed back. The guard sees to the other settings.
            "readonly": "2",
        }
        # By the role that a handle takes; see grants.py.
        self._base = {
            grants.OWNER: common,
            "writer": common,
            "inserter": common,
            "reader": common | reading,
            "parser": {"database": database, "max_threads": "1"},
        }
        # Handles that are used again, while they have seen no error.
        self._idle: dict[str, queue.SimpleQueue[Any]] = {kind: queue.SimpleQueue() for kind in ("inserter", "parser")}
        self._open = 0
        self._open_changed = threading.Condition()

    def close(self) -> None:
        """End what still runs, and close every handle."""
        deadline = time.monotonic() + _LAST_WAIT_S
        with self._open_changed:
            while self._open and time.monotonic() < deadline:
                self._own(f"KILL QUERY WHERE {_MARK_OF} != 'default' ASYNC")
                self._open_changed.wait(0.1)
        for idle in self._idle.values():
            with suppress(queue.Empty):
                while True:
                    idle.get_nowait().close()
        self._first.close()
        shutil.rmtree(self._temporary)

    def end_reads(self) -> None:
        """End every SELECT that runs now; whoever asked gets ClickHouse's QUERY_WAS_CANCELLED."""
        self._own("KILL QUERY WHERE query_kind = 'Select' ASYNC")

    def kill(self, mark: str) -> None:
        """End the statement with this mark, if it runs; it then raises QUERY_WAS_CANCELLED where it was started."""
        self._own(f"KILL QUERY WHERE {_MARK_OF} = {quoted(mark)} ASYNC")

    # what warehouse.migrate needs

    def command(self, statement: str) -> None:
        """Execute a statement of the house."""
        with self._handle(grants.OWNER, {}, {}) as handle:
            _run(handle, statement)

    def rows(self, query: str) -> list[Sequence[Any]]:
        """The rows of a query, every value as text."""
        with self._handle(grants.OWNER, {}, {}) as handle:
            text = _run(handle, query).data.decode()
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
        mark: str = "",
        limits: Mapping[str, str] | None = None,
    ) -> Answer:
        """Run one statement, its whole answer in memory; `output` is the format when it names none. EngineError.

        `mark`: what `kill` knows it by. `limits`: settings that the given ones may lower and not raise.
        """
        kind = "reader" if reader else "writer"
        own = {name: value for name, value in self._base[kind].items() if name in _LIMITS} | dict(limits or {})
        asked = dict(settings or {})
        fixed = lower(own, asked) | ({_MARK: mark} if mark else {})
        others = {name: value for name, value in asked.items() if name not in fixed}
        with self._handle(kind, others, fixed) as handle:
            return _run(handle, statement, output, parameters)

    def stream(
        self,
        statement: str,
        output: str,
        sink: int,
        settings: Mapping[str, str] | None = None,
        parameters: Mapping[str, str] | None = None,
        *,
        reader: bool = False,
        mark: str = "",
        limits: Mapping[str, str] | None = None,
    ) -> Answer:
        """Run a statement that reads, its answer into the pipe `sink` [file descriptor]. EngineError.

        The engine writes as the pipe is read, and holds a block or two. A statement that fails may have written the
        beginning of an answer, and even what looks like its end: only this function's return says that it is whole.
        When nobody reads the pipe any more it goes on all the same: `kill` ends it.
        """
        statement = into(statement, output, sink)
        return self.execute(statement, output, settings, parameters, reader=reader, mark=mark, limits=limits)

    def parsed(self, statement: str, parameters: Mapping[str, str] | None = None) -> str:
        """The tree of a statement, as EXPLAIN AST prints it. EngineError, with the statement's own positions."""
        with self._kept("parser") as handle:
            try:
                return _run(handle, f"{syntax.EXPLAIN}{statement}", "TabSeparated", parameters).data.decode()
            except EngineError as error:
                raise EngineError(syntax.of_the_statement(error.message)) from None

    def insert(self, target: str, form: str, body: bytes, settings: Mapping[str, str] | None = None) -> Answer:
        """`INSERT INTO target FORMAT form` with `body` as its data. EngineError."""
        clause = f" SETTINGS {settings_list(settings)}" if settings else ""
        with tempfile.NamedTemporaryFile(dir=self._temporary, suffix=".data") as file:
            file.write(body)
            file.flush()
            statement = f"INSERT INTO {target} FROM INFILE {quoted(file.name)}{clause} FORMAT {form}"
            with self._kept("inserter") as handle:
                return _run(handle, statement)

    def _own(self, statement: str) -> None:
        with self._first_lock:
            _run(self._first, statement)

    def _opened(self, kind: str, fixed: Mapping[str, str]) -> Any:
        # These values are plain; a SET for what others choose costs as much again.
        settings = self._base[kind] | dict(fixed)
        handle = _connect(f"{self._path}?{'&'.join(f'{name}={value}' for name, value in settings.items())}")
        try:
            _run(handle, f"SET ROLE {kind}")
        except BaseException:
            handle.close()
            raise
        return handle

    def _count(self, change: int) -> None:
        with self._open_changed:
            self._open += change
            self._open_changed.notify_all()

    @contextmanager
    def _handle(self, kind: str, settings: Mapping[str, str], fixed: Mapping[str, str]) -> Iterator[Any]:
        """A new handle with these settings."""
        assignments = settings_list(settings)
        self._count(1)
        try:
            handle = self._opened(kind, fixed)
            try:
                if assignments:
                    _run(handle, f"SET {assignments}")
                yield handle
            finally:
                handle.close()
        finally:
            self._count(-1)

    @contextmanager
    def _kept(self, kind: str) -> Iterator[Any]:
        """A handle that is kept for the next, unless it sees an error."""
        self._count(1)
        try:
            try:
                handle = self._idle[kind].get_nowait()
            except queue.Empty:
                handle = self._opened(kind, {})
            try:
                yield handle
            except BaseException:
                handle.close()
                raise
            self._idle[kind].put(handle)
        finally:
            self._count(-1)


_MARK_OF = f"Settings['{_MARK}']"


def _run(
    handle: Any, statement: str, output: str = "TabSeparated", parameters: Mapping[str, str] | None = None
) -> Answer:
    try:
        result = handle.query(statement, output, params=dict(parameters or {}))
    except Exception as error:  # chDB raises RuntimeError for whatever the engine says
        raise EngineError(str(error)) from None
    return Answer(result.bytes() or b"", result.rows_read(), result.bytes_read(), result.elapsed())
