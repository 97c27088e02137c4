"""ClickHouse's HTTP protocol as clients speak it, over the real engine."""

from __future__ import annotations

import base64
import gzip
import io
import json
import threading
import time
from typing import Any

import anyio
import httpx
import lz4.frame
import pyarrow as pa
import pytest
from backports import zstd

from tests.warehouse.conftest import PASSWORDS
from warehouse.client import Refused, Unavailable, connect
from warehouse.engine import Answer
from warehouse.lanes import Lane, Place
from warehouse.scrub import Scrub
from warehouse.server import Account, Server, judge_of


@pytest.fixture(scope="module", autouse=True)
def table(warehouse: Any) -> None:
    """A table for inserts of all kinds."""
    made = warehouse.post(
        "CREATE TABLE IF NOT EXISTS inbox (a UInt64, b String, ip IPv6 DEFAULT '::', kind LowCardinality(String)) "
        "ENGINE = MergeTree ORDER BY a SETTINGS non_replicated_deduplication_window = 100"
    )
    assert made.status_code == 200, made.text


def get(warehouse: Any, **options: Any) -> httpx.Response:
    return httpx.get(warehouse.url + "/", trust_env=False, **options)


# who may come in


def test_every_way_to_name_oneself(warehouse: Any) -> None:
    query = {"query": "SELECT 1"}
    password = PASSWORDS["reader"]
    basic = base64.b64encode(f"reader:{password}".encode()).decode()
    for options in (
        {"params": query, "headers": {"X-ClickHouse-User": "reader", "X-ClickHouse-Key": password}},
        {"params": query, "headers": {"Authorization": f"Basic {basic}"}},
        {"params": query | {"user": "reader", "password": password}},
    ):
        assert get(warehouse, **options).text == "1\n"


@pytest.mark.parametrize(
    ("user", "password"),
    [("reader", "wrong"), ("reader", ""), ("", ""), ("nobody", "x"), ("reader", PASSWORDS["writer"])],
)
def test_all_others_stay_out(warehouse: Any, user: str, password: str) -> None:
    answer = get(
        warehouse, params={"query": "SELECT 1"}, headers={"X-ClickHouse-User": user, "X-ClickHouse-Key": password}
    )
    assert answer.status_code == 403
    assert answer.headers["X-ClickHouse-Exception-Code"] == "516"
    assert answer.text.startswith("Code: 516. DB::Exception: ")


def test_a_broken_credential_is_told_so(warehouse: Any) -> None:
    answer = get(warehouse, params={"query": "SELECT 1"}, headers={"Authorization": "Basic %%%"})
    assert (answer.status_code, answer.headers["X-ClickHouse-Exception-Code"]) == (401, "194")


def test_ping_needs_no_password(warehouse: Any) -> None:
    assert httpx.get(warehouse.url + "/ping", trust_env=False).text == "Ok.\n"
    assert httpx.head(warehouse.url + "/", trust_env=False).status_code == 200


def test_passwords_are_in_no_log(warehouse: Any) -> None:
    get(warehouse, params={"query": "SELEC", "user": "writer", "password": PASSWORDS["writer"]})
    get(warehouse, params={"query": "SELECT 1", "user": "writer", "password": "guess-8412"})
    for password in (*PASSWORDS.values(), "guess-8412"):
        assert password not in warehouse.log


# questions and answers


def test_formats_and_headers(warehouse: Any) -> None:
    answer = warehouse.post("SELECT number AS n FROM numbers(2)", default_format="JSONEachRow", query_id="q-17")
    assert answer.text == '{"n":"0"}\n{"n":"1"}\n' or answer.text == '{"n":0}\n{"n":1}\n'
    assert answer.headers["X-ClickHouse-Format"] == "JSONEachRow"
    assert answer.headers["X-ClickHouse-Query-Id"] == "q-17"
    assert answer.headers["X-ClickHouse-Timezone"] == "UTC"
    assert answer.headers["Content-Type"].startswith("application/json")
    assert json.loads(answer.headers["X-ClickHouse-Summary"])["read_rows"] == "2"
    assert warehouse.post("SELECT 1 FORMAT CSV", default_format="Native").text == "1\n"
    assert warehouse.post("SELECT 1").headers["X-ClickHouse-Format"] == "TabSeparated"


def test_the_query_may_stand_in_the_url_and_go_on_in_the_body(warehouse: Any) -> None:
    assert warehouse.post("SELECT 1 +", body=b" 2").text == "3\n"


@pytest.mark.parametrize(
    "text", ["plain", "it's", "back\\slash", "tab\there", "new\nline", "{a:String}", "ünï", "'; --"]
)
def test_parameters_arrive_as_they_are(warehouse: Any, text: str) -> None:
    client = connect(warehouse.settings("reader"))
    found = client.query(
        "SELECT {s:String}, {n:UInt64}, {a:Array(String)}", parameters={"s": text, "n": 2**63, "a": [text, "b"]}
    )
    assert found.result_rows == [(text, 2**63, [text, "b"])]
    client.close()


def test_settings_of_one_request_do_not_reach_the_next(warehouse: Any) -> None:
    for user in ("writer", "reader"):
        for _ in range(5):
            assert warehouse.post("SELECT getSetting('extremes')", user, extremes="1").text.startswith("true")
            assert warehouse.post("SELECT getSetting('extremes')", user).text == "false\n"
    assert warehouse.post("SELECT getSetting('max_threads')", max_threads="1").text == "1\n"
    assert warehouse.post("SELECT getSetting('max_threads')").text == "2\n"


def test_a_writer_may_ask_as_a_reader_and_nobody_can_spoil_a_handle(warehouse: Any) -> None:
    for _ in range(4):
        assert warehouse.post("SELECT 1", readonly="1").text == "1\n"
        assert warehouse.post("CREATE TABLE spoilt (a UInt8) ENGINE = Memory", readonly="1").status_code == 500
        assert warehouse.post("INSERT INTO inbox (a) FORMAT CSV", body=b"1\n", readonly="2").status_code == 500
        assert warehouse.post("SET readonly = 1").status_code == 501
        assert warehouse.post("SELECT 1", allow_ddl="0").status_code == 500
        assert warehouse.post("SELECT 1", extremes="1", no_such_setting="1").status_code == 404
    for _ in range(4):
        assert warehouse.post("CREATE TABLE spoilt (a UInt8) ENGINE = Memory").status_code == 200
        assert warehouse.post("DROP TABLE spoilt").status_code == 200
        assert warehouse.post("SELECT getSetting('extremes')").text == "false\n"


@pytest.mark.parametrize(
    ("query", "status", "code"),
    [
        ("SELEC 1", 400, "62"),
        ("SELECT nothing", 404, "47"),
        ("SELECT * FROM nowhere", 404, "60"),
        ("SELECT noSuchFunction()", 404, "46"),
        ("SELECT throwIf(1)", 500, "395"),
        ("", 400, "62"),
        ("   ", 400, "62"),
        ("SELECT '\udce4'", 400, "62"),
    ],
)
def test_errors_have_clickhouses_form(warehouse: Any, query: str, status: int, code: str) -> None:
    answer = httpx.post(
        warehouse.url + "/",
        params={"database": "tgw"},
        content=query.encode(errors="surrogateescape"),
        headers={"X-ClickHouse-User": "writer", "X-ClickHouse-Key": PASSWORDS["writer"]},
        trust_env=False,
    )
    assert (answer.status_code, answer.headers["X-ClickHouse-Exception-Code"]) == (status, code), answer.text
    assert answer.text.startswith(f"Code: {code}. DB::Exception: ")


def test_a_bad_setting_is_refused(warehouse: Any) -> None:
    assert warehouse.post("SELECT 1", no_such_setting="1").headers["X-ClickHouse-Exception-Code"] == "115"
    assert warehouse.post("SELECT 1", **{"a b": "1"}).headers["X-ClickHouse-Exception-Code"] == "115"
    assert warehouse.post("SELECT 1").text == "1\n"


def test_a_failed_statement_leaves_the_handle_usable(warehouse: Any) -> None:
    for _ in range(6):
        assert warehouse.post("SELECT throwIf(number = 3) FROM numbers(9)", max_threads="1").status_code == 500
        assert warehouse.post("INSERT INTO inbox (a) FORMAT CSV", body=b"no number\n").status_code == 400
    assert warehouse.post("SELECT 1").text == "1\n"


# inserts

NASTY = bytes(range(256)) + b"\nFORMAT CSV\n'`\"\\"


def arrow(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


def row_binary(number: int, text: bytes) -> bytes:
    size, head = len(text), bytearray()
    while size >= 0x80:
        head.append(size & 0x7F | 0x80)
        size >>= 7
    return number.to_bytes(8, "little") + bytes([*head, size]) + text


def texts(warehouse: Any, kind: str) -> list[bytes]:
    rows = warehouse.rows(f"SELECT hex(b) FROM inbox WHERE kind = '{kind}' ORDER BY a")
    return [bytes.fromhex(text) for (text,) in rows]


@pytest.mark.parametrize("where", ["url", "body"])
def test_binary_bodies_arrive_as_they_are(warehouse: Any, where: str) -> None:
    columns = {"a": pa.array([1], pa.uint64()), "b": pa.array([NASTY], pa.binary()), "kind": [f"arrow-{where}"]}
    for form, names, body in (
        ("Arrow", "a, b, kind", arrow(pa.table(columns))),
        ("RowBinary", "a, b, kind", row_binary(1, NASTY) + bytes([len(f"rb-{where}")]) + f"rb-{where}".encode()),
    ):
        query = f"INSERT INTO inbox ({names}) FORMAT {form}"
        if where == "url":
            answer = warehouse.post(query, body=body)
        else:
            answer = httpx.post(
                warehouse.url + "/",
                params={"database": "tgw"},
                content=query.encode() + b"\n" + body,
                headers={"X-ClickHouse-User": "writer", "X-ClickHouse-Key": PASSWORDS["writer"]},
                trust_env=False,
            )
        assert answer.status_code == 200, answer.text
        assert json.loads(answer.headers["X-ClickHouse-Summary"])["written_rows"] == "1"
    assert texts(warehouse, f"arrow-{where}") == [NASTY]
    assert texts(warehouse, f"rb-{where}") == [NASTY]


PACKERS = {
    "gzip": gzip.compress,
    "lz4": lz4.frame.compress,
    "zstd": zstd.compress,
    "identity": lambda data: data,
}


@pytest.mark.parametrize("encoding", PACKERS)
def test_packed_bodies(warehouse: Any, encoding: str) -> None:
    answer = httpx.post(
        warehouse.url + "/",
        params={"database": "tgw", "query": "INSERT INTO inbox (a, b, kind) FORMAT CSV"},
        content=PACKERS[encoding](f"1,x,packed-{encoding}\n".encode()),
        headers={
            "X-ClickHouse-User": "writer", "X-ClickHouse-Key": PASSWORDS["writer"], "Content-Encoding": encoding,
        },
        trust_env=False,
    )  # fmt: skip
    assert answer.status_code == 200, answer.text
    assert texts(warehouse, f"packed-{encoding}") == [b"x"]


@pytest.mark.parametrize("encoding", ["gzip", "lz4", "zstd", "deflate", "br", "nonsense"])
def test_a_body_that_cannot_be_unpacked_is_refused(warehouse: Any, encoding: str) -> None:
    headers = {"X-ClickHouse-User": "writer", "X-ClickHouse-Key": PASSWORDS["writer"], "Content-Encoding": encoding}
    answer = httpx.post(warehouse.url + "/", content=b"neither packed nor good", headers=headers, trust_env=False)
    assert answer.status_code == 400
    assert answer.headers["X-ClickHouse-Exception-Code"] in ("36", "271")


@pytest.mark.parametrize("compress", [False, "lz4", "zstd", "gzip"])
def test_clickhouse_connect_inserts_and_reads(warehouse: Any, compress: Any) -> None:
    import clickhouse_connect

    client = clickhouse_connect.get_client(
        host="127.0.0.1", port=warehouse.port, username="writer", password=PASSWORDS["writer"], database="tgw",
        compress=compress,
    )  # fmt: skip
    kind = f"native-{compress}"
    client.insert("inbox", [[7, "sept", "::ffff:10.0.0.1", kind]], column_names=["a", "b", "ip", "kind"])
    rows = client.query(
        "SELECT a, b, toString(ip) FROM inbox WHERE kind = {k:String}", parameters={"k": kind}
    ).result_rows
    assert rows == [(7, "sept", "::ffff:10.0.0.1")]
    assert client.query_df("SELECT a, b FROM inbox WHERE kind = {k:String}", parameters={"k": kind}).shape == (1, 2)
    assert client.ping()
    client.close()


def test_a_token_makes_an_insert_harmless_to_repeat(warehouse: Any) -> None:
    connection = warehouse.connection()
    rows = pa.table({"a": pa.array(range(1000), pa.uint64()), "b": ["x"] * 1000, "kind": ["token"] * 1000})
    for token in ("one", "one", "two", "one", "two"):
        connection.insert_arrow("inbox", rows, token)
    assert connection.query("SELECT count() FROM inbox WHERE kind = 'token'") == [(2000,)]
    connection.close()


def test_a_token_covers_a_batch_of_many_blocks(warehouse: Any) -> None:
    connection = warehouse.connection()
    part = {"a": pa.array(range(60_000), pa.uint64()), "b": ["long enough to be more than one block"] * 60_000}
    rows = pa.concat_tables([pa.table(part | {"kind": ["blocks"] * 60_000})] * 20)
    for _ in range(2):
        connection.insert_arrow("inbox", rows, "many-blocks")
    assert connection.query("SELECT count() FROM inbox WHERE kind = 'blocks'") == [(1_200_000,)]
    text = b"".join(b"%d,csv-blocks,csv-blocks\n" % i for i in range(1_200_000))
    for _ in range(2):
        query = "INSERT INTO inbox (a, b, kind) FORMAT CSV"
        assert warehouse.post(query, body=text, insert_deduplication_token="csv").status_code == 200
    assert connection.query("SELECT count() FROM inbox WHERE kind = 'csv-blocks'") == [(1_200_000,)]
    connection.close()


def test_a_repeated_batch_is_not_counted_twice_in_the_rollups(warehouse: Any) -> None:
    connection = warehouse.connection()
    row = [time.time_ns(), "silent", "rollup", 9]
    for token in ("p-1", "p-1", "p-2"):
        connection.insert("probes", ["ts", "outcome", "prober", "vip_id"], [row] * 3, token)
    assert connection.query("SELECT sum(probes) FROM probes_1s WHERE prober = 'rollup'") == [(6,)]
    connection.close()


def test_refused_and_unavailable_are_told_apart(warehouse: Any) -> None:
    connection = warehouse.connection()
    with pytest.raises(Refused, match="UNKNOWN_TABLE"):
        connection.insert("nowhere", ["a"], [[1]])
    connection.close()
    (warehouse.folder / "wrong.password").write_text("wrong")
    with pytest.raises(Refused, match="Authentication failed"):
        connect(warehouse.settings(password_file=warehouse.folder / "wrong.password"))
    with pytest.raises(Unavailable):
        connect(warehouse.settings(url="http://127.0.0.1:9"))


def test_a_body_has_a_limit_packed_or_not(small_warehouse: Any) -> None:
    headers = {"X-ClickHouse-User": "writer", "X-ClickHouse-Key": PASSWORDS["writer"]}
    for body, encoding in (
        (b"x" * 70_000, "identity"),
        (gzip.compress(b"x" * 10_000_000), "gzip"),
        (zstd.compress(b"x" * 10_000_000), "zstd"),
        (lz4.frame.compress(b"x" * 10_000_000), "lz4"),
    ):
        answer = httpx.post(
            small_warehouse.url + "/", content=body, headers=headers | {"Content-Encoding": encoding}, trust_env=False
        )
        assert answer.status_code == 413, encoding
        assert answer.headers["X-ClickHouse-Exception-Code"] == "241"


def test_slow_dashboards_do_not_hold_up_inserts(warehouse: Any) -> None:
    slow = "SELECT count() FROM numbers(100000000000) WHERE number % 7 = cityHash64(number) % 5"
    readers = [threading.Thread(target=warehouse.post, args=(slow, "reader"), kwargs={}) for _ in range(4)]
    for thread in readers:
        thread.start()
    deadline = time.monotonic() + 15
    while warehouse.rows("SELECT count() FROM system.processes WHERE query LIKE '%cityHash64(number)%'")[0][0] < 3:
        assert time.monotonic() < deadline
    started = time.monotonic()
    for i in range(5):
        assert warehouse.post("INSERT INTO inbox (a, kind) FORMAT CSV", body=f"{i},busy\n".encode()).status_code == 200
    taken = time.monotonic() - started
    warehouse.post("KILL QUERY WHERE query LIKE '%cityHash64(number)%' SYNC")
    still = sum(thread.is_alive() for thread in readers)
    while any(thread.is_alive() for thread in readers):
        warehouse.post("KILL QUERY WHERE query LIKE '%cityHash64(number)%' SYNC")
    assert still or taken < 5
    assert taken < 10


class SlowEngine:
    """Answers when it is told to."""

    def __init__(self) -> None:
        self.go = threading.Event()

    def stream(self, *_: Any, **__: Any) -> Answer:
        self.go.wait(20)
        return Answer(b"1\n", 1, 1, 0.0)

    def kill(self, mark: str) -> None:
        self.go.set()

    def parsed(self, *_: Any) -> str:
        return "SelectWithUnionQuery\n"

    def rows(self, _: str) -> list[list[str]]:
        return []


def test_too_long_a_line_is_turned_away_at_once() -> None:
    async def story() -> list[int]:
        engine = SlowEngine()
        judge = judge_of(engine, "tgw", 1000, 1000, {})  # type: ignore[arg-type]
        accounts = [Account("r", "p", True)]
        lanes = {"reader": [Lane(Place(1), waiting=4)]}
        app = Server(engine, accounts, 1000, judge, Scrub([]), lanes, 20).app  # type: ignore[arg-type]
        statuses: list[int] = []
        turned_away = anyio.Event()
        auth = {"X-ClickHouse-User": "r", "X-ClickHouse-Key": "p"}
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://t") as client:

            async def ask() -> None:
                statuses.append((await client.post("/", content="SELECT 1", headers=auth)).status_code)
                if len(statuses) == 2:
                    turned_away.set()

            async with anyio.create_task_group() as group:
                for _ in range(5):
                    group.start_soon(ask)
                await turned_away.wait()
                engine.go.set()
        return statuses

    assert anyio.run(story) == [503, 503, 200, 200, 200]
