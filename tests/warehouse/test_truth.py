"""A thousand statements of eight clients, a third fail in mid-stream: each answer is that of a fresh engine."""

from __future__ import annotations

import random
import threading
from dataclasses import dataclass
from typing import Any

import chdb
import httpx
import pytest

from tests.warehouse.conftest import PASSWORDS

SEED = 20261128
STATEMENTS, CLIENTS = 1000, 8
FORMATS = (
    "TabSeparated", "TabSeparatedWithNamesAndTypes", "JSON", "JSONCompact", "JSONEachRow", "RowBinary",
    "RowBinaryWithNamesAndTypes", "Native", "Arrow", "ArrowStream", "CSV", "CSVWithNames", "Values", "Parquet",
)  # fmt: skip
# As the engine gives them to readers, so that the oracle's blocks have the same sizes.
READERS = (
    "max_threads=1&max_block_size=8192&output_format_parallel_formatting=0&output_format_parquet_parallel_encoding=0"
    "&output_format_parquet_row_group_size_bytes=8388608&output_format_write_statistics=0"
)


@dataclass(frozen=True)
class Ask:
    """A statement. `tag`: what stands in every row of its answer and of no other; `code`: of the error it ends with."""

    number: int
    query: str
    form: str
    settings: dict[str, str]
    code: int

    @property
    def tag(self) -> bytes:
        return b"tag-%04d-" % self.number


def asks(rng: random.Random) -> list[Ask]:
    out = []
    for number in range(STATEMENTS):
        tag, form = f"'tag-{number:04d}-{'x' * 50}'", rng.choice(FORMATS)
        rows = rng.randrange(30_000, 60_000)
        settings: dict[str, str] = {"max_threads": "1", "output_format_write_statistics": "0"}
        code = 0
        match rng.randrange(9):
            case 0 if number % 2:
                code, query = 159, f"SELECT {tag}, arraySum(range(3000)) FROM numbers(100000000000)"
                settings["max_execution_time"] = "0.1"
            case 0:
                code, query = 396, f"SELECT number, {tag} FROM numbers(5000000)"
                settings["max_result_rows"] = str(rows)
            case 1:
                code, query = 395, f"SELECT throwIf(number = {rows}), {tag}, number FROM numbers(5000000)"
            case 2:
                code, query = 6, f"SELECT toUInt8(if(number = {rows}, 'X', '1')), {tag} FROM numbers(5000000)"
            case 3:
                query = (
                    f"SELECT number % {rows % 97 + 1} AS k, {tag} AS t, sum(number) FROM numbers({rows})"
                    " GROUP BY k ORDER BY k"
                )
            case 4:
                query = f"SELECT number, {tag}, toString(cityHash64(number)) FROM numbers({rows})"
            case 5:
                query = (
                    f"SELECT {tag} AS t, [number, {number}], toLowCardinality(t), if(number % 3, NULL, number)"
                    f" FROM numbers({rows % 500})"
                )
            case _:
                query = f"SELECT {number} AS n, {tag} AS t, {rng.random()} AS f"
        out.append(Ask(number, query, form, settings, code))
    return out


def fresh(ask: Ask) -> bytes:
    """What a handle that nobody had before gives, all at once."""
    handle = chdb.connect(f":memory:?{READERS}")  # type: ignore[no-untyped-call]
    try:
        return handle.query(ask.query, ask.form).bytes() or b""
    finally:
        handle.close()


def served(url: str, client: httpx.Client, ask: Ask) -> tuple[int, bytes, bool, str]:
    """(status, body, whether it came to its end, tag of the exception)."""
    body: list[bytes] = []
    whole = False
    params = {"query_id": f"truth-{ask.number}", "default_format": ask.form} | ask.settings
    with client.stream("POST", url + "/", params=params, content=ask.query) as answer:
        try:
            body.extend(answer.iter_raw())
            whole = True
        except httpx.RemoteProtocolError:
            pass  # it was cut
        return answer.status_code, b"".join(body), whole, answer.headers.get("X-ClickHouse-Exception-Tag", "")


@pytest.mark.slow
def test_every_answer_is_that_of_a_fresh_engine(warehouse: Any) -> None:
    every = asks(random.Random(SEED))
    failing = sum(ask.code != 0 for ask in every)
    assert STATEMENTS / 4 < failing < STATEMENTS / 2
    wrong: list[str] = []
    cut = 0
    lock = threading.Lock()

    def check(ask: Ask, client: httpx.Client) -> None:
        nonlocal cut
        status, body, whole, tag = served(warehouse.url, client, ask)
        why = ""
        if ask.code == 0:
            if (status, whole) != (200, True):
                why = f"status {status}, {body[:200]!r}"
            elif body != fresh(ask):
                why = f"{len(body)} bytes, expected others: {body[:80]!r}"
        elif f"Code: {ask.code}. DB::Exception".encode() not in body:
            why = f"no error {ask.code}: status {status}, {body[-200:]!r}"
        elif status == 200 and (whole or not body.endswith(f"{tag}\r\n__exception__\r\n".encode())):
            why = f"a cut answer looks whole: {body[-200:]!r}"
        strangers = body.count(b"tag-") - body.count(ask.tag) if ask.form != "Parquet" else 0
        if strangers and not why:
            why = f"{strangers} rows of others"
        with lock:
            cut += status == 200 and not whole
            if why:
                wrong.append(f"{ask.number} ({ask.form}) {ask.query[:80]}: {why}")

    def work(part: list[Ask]) -> None:
        headers = {"X-ClickHouse-User": "reader", "X-ClickHouse-Key": PASSWORDS["reader"]}
        headers["Accept-Encoding"] = "identity"
        with httpx.Client(headers=headers, timeout=60, trust_env=False) as client:
            for ask in part:
                check(ask, client)

    # The oracle's engine lives as long as one of its handles does.
    keeper = chdb.connect(":memory:")  # type: ignore[no-untyped-call]
    threads = [threading.Thread(target=work, args=(every[i::CLIENTS],)) for i in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    keeper.close()
    print(f"{STATEMENTS} statements, {failing} fail, {cut} of them in mid-stream")
    assert not wrong, f"{len(wrong)} wrong answers, first: {wrong[:3]}"
    assert cut > failing / 2
