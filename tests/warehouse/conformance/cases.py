"""The table of cases (cases.toml), asked of an endpoint, and written into docs/warehouse.md.

`python -m tests.warehouse.conformance.cases` writes the table into the document; a test fails when it is stale.
"""

from __future__ import annotations

import gzip
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from backports import zstd

from warehouse import encoding, framing

HERE = Path(__file__).parent
DOCUMENT = HERE.parents[2] / "docs" / "warehouse.md"
BEGIN, END = "<!-- cases: written by tests/warehouse/conformance/cases.py -->", "<!-- end of cases -->"
PACKED: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "zstd": zstd.compress,
    "lz4 blocks": framing.block,
    "zstd blocks": lambda data: framing.block(data, framing.ZSTD),
}


@dataclass(frozen=True)
class Case:
    """One request and its answer; names as in cases.toml. `server`: what a server answers where it is another."""

    name: str
    group: str
    user: str = "reader"
    method: str = "POST"
    query: str = ""
    body: str = ""
    pack: str = ""
    params: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    status: int = 200
    code: int = 0
    text: str | None = None
    like: str = ""
    answers: Mapping[str, str] = field(default_factory=dict)
    debian: bool = False
    differs: str = ""
    refused: str = ""
    server: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Endpoint:
    """Where the cases are asked. `users`: role -> (name, password); `real`: it is a ClickHouse server.

    `old`: of 2018; it told an exception's number in its text alone, and no format.
    """

    url: str
    database: str
    table: str
    users: Mapping[str, tuple[str, str]]
    real: bool
    old: bool = False

    def filled(self, text: str) -> str:
        """A text of the table with what it stands for here."""
        reader, password = self.users["reader"]
        for name, value in (
            ("{table}", self.table),
            ("{database}", self.database),
            ("{reader}", reader),
            ("{reader_password}", password),
        ):
            text = text.replace(name, value)
        return text

    def request(self, case: Case) -> httpx.Response:
        """Ask one case."""
        headers = {name: self.filled(value) for name, value in case.headers.items()}
        if case.user:
            user, password = self.users[case.user]
            headers |= {"X-ClickHouse-User": user, "X-ClickHouse-Key": password}
        # httpx asks for gzip by itself.
        headers = {"Accept-Encoding": "identity"} | headers
        params = {"database": self.database} if case.user else {}
        params |= {name: self.filled(value) for name, value in case.params.items()}
        if case.query:
            params["query"] = self.filled(case.query)
        body = self.filled(case.body).encode()
        if case.pack:
            body = PACKED[case.pack](body)
        return httpx.request(
            case.method,
            self.url + "/",
            params=params,
            headers=headers,
            content=body or None,
            timeout=60,
            trust_env=False,
        )


def cases() -> list[Case]:
    """All cases; TypeError for a field that there is not."""
    return [Case(**case) for case in tomllib.loads((HERE / "cases.toml").read_text())["case"]]


def faults(endpoint: Endpoint, case: Case) -> list[str]:
    """What of the answer is not as it should be; empty when all is."""
    if endpoint.real and case.server:
        case = Case(
            **{name: getattr(case, name) for name in ("name", "group", "user", "method", "query", "body", "pack")},
            params=case.params,
            headers=case.headers,
            **case.server,
        )
    answer = endpoint.request(case)
    text = answer.text
    if case.params.get("compress") == "1":
        text = b"".join(encoding.unpack([answer.content], [framing.BlockUnpacker(1 << 20)])).decode()
    found = []
    if answer.status_code != case.status:
        found.append(f"expected status {case.status}, got {answer.status_code}: {text[:300]}")
    code = int(answer.headers.get("X-ClickHouse-Exception-Code", "0"))
    if endpoint.old and (told := re.match(r"Code: (\d+), e\.displayText", text)):
        code = int(told[1])
    if case.code and code != case.code:
        found.append(f"expected code {case.code}, got {code}: {text[:300]}")
    if (
        case.code
        and not endpoint.real
        and not re.match(rf"Code: {case.code}\. DB::Exception: .*\([A-Z_]+\)", text, re.S)
    ):
        found.append(f"expected an error in ClickHouse's form, got {text[:300]}")
    if case.text is not None and text != endpoint.filled(case.text):
        found.append(f"expected {endpoint.filled(case.text)!r}, got {text[:300]!r}")
    if case.like and not re.search(case.like, text):
        found.append(f"expected something like {case.like!r}, got {text[:300]!r}")
    for name, value in case.answers.items():
        if answer.headers.get(name, "") != value and not (endpoint.old and name == "X-ClickHouse-Format"):
            found.append(f"expected {name}: {value}, got {answer.headers.get(name)!r}")
    return found


def cell(text: str) -> str:
    """A text as a cell of a table in Markdown."""
    return text.replace("|", "\\|").replace("\n", " ")


def table() -> str:
    """The cases as Markdown."""
    lines: list[str] = []
    group = ""
    for case in cases():
        if case.group != group:
            group = case.group
            lines += ["", f"**{group}**", "", "| case | here | as a server |", "|---|---|---|"]
        here = f"{case.status}" + (f", code {case.code}" if case.code else "")
        like = "same" + (" ✓" if case.debian else "")
        if case.differs:
            like = f"differs{' ✓' if case.debian else ''}: {case.differs}"
        elif case.refused:
            like = f"refused{' ✓' if case.debian else ''}: {case.refused}"
        lines.append(f"| {cell(case.name)} | {here} | {cell(like)} |")
    return "\n".join(lines[1:]) + "\n"


def published(document: str) -> str:
    """The document with the table as it is now; ValueError when it has no place for it."""
    head, begin, rest = document.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{DOCUMENT.name} has no place for the cases: {BEGIN!r} and {END!r}")
    return f"{head}{BEGIN}\n\n{table()}\n{END}{tail}"


if __name__ == "__main__":
    DOCUMENT.write_text(published(DOCUMENT.read_text()))
