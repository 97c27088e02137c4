"""From a request to what the engine is to do: the statement found and judged, its settings chosen, its data unpacked.

Pure but for the engine's parser; it takes as long as that and unpacking take, so it runs in a thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from warehouse import choices, encoding, request
from warehouse.guard import Guard, Insert, denied, insert_statement
from warehouse.refusals import Refusal
from warehouse.request import Ask

# What a client is given that names ClickHouse's default database: statements of a user run in the product's.
ALIAS = "default"


@dataclass(frozen=True, slots=True)
class Plan:
    """What the engine is to do. `kind`: which of its handles; `form`: the format of the answer.

    `insert`: with `data`, the rows of an INSERT; None: `statement` as it stands. `selects`: it is a SELECT.
    """

    kind: str
    statement: str
    form: str
    settings: dict[str, str]
    parameters: dict[str, str]
    insert: Insert | None = None
    data: bytes = b""
    selects: bool = False


@dataclass(frozen=True, slots=True)
class Judge:
    """Judges requests. `databases`: those that there are now; `max_body`: largest unpacked body [bytes];
    `max_statement`: longest statement [characters].
    """

    guard: Guard
    policy: choices.Policy
    database: str
    databases: Callable[[], Iterable[str]]
    max_body: int
    max_statement: int

    @property
    def max_statement_bytes(self) -> int:
        """What the longest statement comes to at most [bytes]."""
        return 4 * self.max_statement

    def too_long(self) -> Refusal:
        """What is said to a statement that is longer."""
        return Refusal(229, f"the statement is longer than {self.max_statement} characters")

    def plan(self, ask: Ask, user: str, query: str, body: Iterable[bytes], *, reader: bool) -> Plan:
        """The plan for a request; Refusal, PackedDataError, or what the engine says of the statement.

        `query`: of the URL; `body`: as it was sent, in chunks.
        """
        self._database(ask.database)
        data = b"".join(encoding.unpack(body, ask.unpackers(self.max_statement_bytes if reader else self.max_body)))
        # The body continues the query, as on a ClickHouse server; for an INSERT it is the data.
        statement, rows = (query, data) if query else (_text(data), b"")
        if not statement.strip():
            raise Refusal(62, "Syntax error: Empty query: expected one in the body or in the URL's parameter `query`")
        reading = reader or ask.readonly or ask.by_get
        insert = insert_statement(statement)
        # Expressions in VALUES are part of the statement, and are judged with it. A longer one may hold literals alone.
        if insert is not None and not (
            insert.form.upper() == "VALUES" and len(statement) + len(rows) <= self.max_statement
        ):
            if reading:
                raise self._readonly(ask, user, reader, "INSERT")
            return self._insert(ask, insert, statement, rows if query else data, in_url=bool(query))
        if query and rows:
            statement = f"{query}\n{_text(rows)}"
        self._length(statement)
        settings = self.policy.chosen(ask.settings, reader=reading)
        verdict = self.guard.check(statement, ask.parameters, reader=reader)
        if reading and not verdict.reads:
            raise self._readonly(ask, user, reader, statement.split(maxsplit=1)[0].upper())
        return Plan(
            "reader" if reading else "writer",
            statement,
            verdict.form or ask.form,
            request.for_the_engine(settings),
            ask.parameters,
            selects=verdict.kind == "SelectWithUnionQuery",
        )

    def _insert(self, ask: Ask, insert: Insert, statement: str, data: bytes, *, in_url: bool) -> Plan:
        head = statement[: insert.head]
        self._length(head)
        self.guard.check(head, ask.parameters, reader=False)
        start = len(statement[: insert.data].encode())
        data = statement[insert.data :].encode() + data if in_url else data[start:]
        settings = self.policy.chosen(ask.settings | insert.settings, reader=False)
        if insert.form.upper() == "VALUES":
            settings["input_format_values_interpret_expressions"] = "0"
        return Plan(
            "inserter", head, ask.form, request.for_the_engine(settings), ask.parameters, insert=insert, data=data
        )

    def _readonly(self, ask: Ask, user: str, reader: bool, what: str) -> Refusal:
        if reader:
            return denied(f"{user}: a reader may only read, got {what}")
        why = "method GET implies readonly, use method POST" if ask.by_get else "it was asked for"
        return Refusal(164, f"{user}: Cannot execute query in readonly mode, got {what}. For queries over HTTP, {why}")

    def _length(self, statement: str) -> None:
        if len(statement) > self.max_statement:
            raise Refusal(229, f"the statement is longer than {self.max_statement} characters: {len(statement)}")

    def _database(self, name: str) -> None:
        if name in ("", self.database, ALIAS):
            return
        if name in set(self.databases()):
            raise Refusal(
                48, f"database={name}: statements run in {self.database} here, name the table as {name}.TABLE"
            )
        raise Refusal(81, f"Database {name} does not exist")


def _text(data: bytes) -> str:
    """The statement's text; data of an INSERT may follow it that is none, and is cut off at its first line."""
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        head, newline, _ = data[: error.start].rpartition(b"\n")
        if not newline:
            raise Refusal(62, f"Syntax error: the query is not UTF-8 (byte {error.start})") from None
        return (head + newline).decode()
