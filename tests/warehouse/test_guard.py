"""What one may say, asked of the real endpoint; a file and a listener that nobody may ever reach."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from warehouse import allowed
from warehouse.guard import insert_statement

SECRET = "kept-from-everyone"


@dataclass
class Outside:
    """What must not be reached: a file to read, a folder to write into, a server to ask."""

    folder: Path
    listener: socket.socket
    asked: list[str] = field(default_factory=list)

    @property
    def port(self) -> int:
        return int(self.listener.getsockname()[1])

    def filled(self, statement: str) -> str:
        folder = self.folder
        return (
            statement.replace("{secret}", str(folder / "secret.csv"))
            .replace("{target}", str(folder / "written.csv"))
            .replace("{folder}", str(folder))
            .replace("{server}", f"127.0.0.1:{self.port}")
        )


@pytest.fixture(scope="module")
def outside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outside]:
    folder = tmp_path_factory.mktemp("outside")
    (folder / "secret.csv").write_text(f"{SECRET}\n")
    listener = socket.create_server(("127.0.0.1", 0))
    found = Outside(folder, listener)

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                connection.settimeout(1)
                found.asked.append(connection.recv(200).decode(errors="replace"))
                connection.sendall(f"HTTP/1.1 200 OK\r\nContent-Length: {len(SECRET)}\r\n\r\n{SECRET}".encode())

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield found
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join(5)


ALLOWED = [
    "SELECT 1",
    "select count() from probes where outcome = 'silent' format JSONEachRow",
    "/* a comment; with a semicolon */ SELECT 'INSERT INTO t; DROP TABLE t' AS text",
    "WITH a AS (SELECT 1 AS x) SELECT x FROM a",
    "WITH RECURSIVE a AS (SELECT 1 AS x UNION ALL SELECT x + 1 FROM a WHERE x < 5) SELECT sum(x) FROM a",
    "(SELECT 1) UNION ALL (SELECT 2);",
    "SELECT cluster FROM (SELECT 'a' AS cluster)",
    "SELECT * FROM numbers(3) AS a JOIN numbers(4) AS b ON 1 = 1",
    "SELECT * FROM values('a UInt8, b String', (1, 'x')) ARRAY JOIN [1, 2] AS c",
    "SELECT format('{} {}', 'a', 'b'), arrayMap(x -> x + 1, [1]), arrayMap(toString, [1])",
    "SELECT * REPLACE(1 AS number), COLUMNS('num') APPLY(toString), sum(number) OVER w FROM numbers(3) "
    "WINDOW w AS (PARTITION BY number ORDER BY number ROWS BETWEEN 1 PRECEDING AND CURRENT ROW)",
    "SELECT number FROM numbers(9) WHERE number IN (SELECT 1) ORDER BY number WITH FILL FROM 1 TO 3 LIMIT 1 BY number",
    "SELECT quantileTDigest(0.9)(number), topK(3)(number), sumIf(number, number > 1) FROM numbers(9)",
    "SELECT toStartOfInterval(now(), INTERVAL 1 MINUTE), CAST(1 AS String), 1::UInt8, DATE '2026-01-01', [1, 2][1]",
    "SELECT CASE 1 WHEN 1 THEN 'a' END, CASE WHEN 1 THEN 2 ELSE 3 END, 1 BETWEEN 0 AND 2, 'a' LIKE 'b', NOT 1",
    "SELECT 1 EXCEPT SELECT 2 INTERSECT SELECT 3",
    "SELECT 1 SETTINGS output_format_json_quote_64bit_integers = 0, session_timezone = 'UTC'",
    "SELECT 1 SETTINGS -- a remark\n extremes = 0",
    "SELECT 1 SETTINGS max_execution_time = 1, max_threads = 1, final",
    "SELECT 'it''s' || 'a\\'b' -- don't",
    "SELECT 'ü', `grün` FROM (SELECT 1 AS `grün`)",
    "SELECT $tag$ ; DROP TABLE 'x' $tag$",
    "SHOW TABLES",
    "SHOW TABLES FROM tgw LIKE 'pro%'",
    "SHOW DATABASES",
    "SHOW COLUMNS FROM probes",
    "SHOW CREATE TABLE probes",
    "DESCRIBE TABLE probes",
    "DESCRIBE TABLE (SELECT 1 AS x)",
    "EXISTS TABLE probes",
    "EXPLAIN SELECT 1",
    "EXPLAIN PIPELINE SELECT 1",
    "EXPLAIN indexes = 1 SELECT count() FROM probes",
    "EXPLAIN AST SELECT 1",
    "SELECT name, total_rows FROM system.tables WHERE database = 'tgw'",
    "SELECT count(*) FROM system.tables",
    "SELECT * EXCEPT (data_paths, metadata_path) FROM system.tables LIMIT 1",
    "SELECT * FROM (SELECT name FROM system.databases)",
    "SELECT name, type FROM system.columns WHERE table = 'probes'",
    "SELECT name FROM system.functions LIMIT 1",
    "SELECT name, value FROM system.settings LIMIT 1",
    "SELECT sum(rows), sum(bytes_on_disk) FROM system.parts WHERE active",
    "SELECT table_name FROM information_schema.tables LIMIT 1",
    "SELECT column_name FROM INFORMATION_SCHEMA.COLUMNS LIMIT 1",
]
# Nobody may say these. (statement, a word of the reason)
OUTSIDE = [
    ("SELECT * FROM file('{secret}', 'LineAsString')", "file"),
    ("SELECT * FROM file/**/('{secret}')", "file"),
    ("SELECT * FROM `file`('{secret}')", "file"),
    ('SELECT * FROM "file"(\'{secret}\')', "file"),
    ("SELECT * FROM `f\\x69le`('{secret}')", "escape"),
    ("SELECT * FROM “file”('{secret}')", "ASCII"),
    ("SELECT file\u2060('{secret}')", "ASCII"),
    ("SELECT file('{secret}')", "file"),
    ("SELECT FILE('{secret}')", "FILE"),
    ("SELECT arrayMap(file, ['{secret}'])", "file"),
    ("SELECT arrayMap(`file`, ['{secret}'])", "file"),
    ("SELECT arrayFilter(x -> file(x) != '', ['{secret}'])", "file"),
    ("SELECT * APPLY(file) FROM (SELECT '{secret}' AS a)", "file"),
    ("SELECT * APPLY file FROM (SELECT '{secret}' AS a)", "file"),
    ("SELECT * APPLY(x -> file(x)) FROM (SELECT '{secret}' AS a)", "file"),
    ("SELECT * REPLACE(file('{secret}') AS a) FROM (SELECT 'x' AS a)", "file"),
    ("SELECT a FROM (SELECT 1 AS a, '' AS b) ORDER BY a WITH FILL INTERPOLATE (b AS file('{secret}'))", "file"),
    ("SELECT 1 LIMIT length(file('{secret}'))", "file"),
    ("SELECT sum(1) OVER (PARTITION BY file('{secret}'))", "file"),
    ("WITH file('{secret}') AS x SELECT x", "file"),
    ("WITH x AS (SELECT * FROM file('{secret}')) SELECT * FROM x", "file"),
    ("SELECT 1 WHERE EXISTS (SELECT * FROM file('{secret}'))", "file"),
    ("SELECT * FROM view(SELECT * FROM file('{secret}'))", "file"),
    ("FROM file('{secret}') SELECT *", "file"),
    ("SELECT 1 UNION ALL SELECT file('{secret}')", "file"),
    ("DESCRIBE TABLE file('{secret}')", "file"),
    ("DESCRIBE (SELECT file('{secret}'))", "file"),
    ("SHOW TABLES WHERE file('{secret}') != ''", "file"),
    ("SHOW TABLES WHERE name IN (SELECT query FROM system.processes)", "SHOW"),
    ("EXPLAIN SELECT * FROM file('{secret}')", "file"),
    ("EXPLAIN QUERY TREE SELECT file('{secret}')", "file"),
    ("SELECT * FROM numbers(1), url('http://{server}/', 'CSV', 'a String')", "url"),
    ("SELECT * FROM urlCluster('x', 'http://{server}/', 'CSV', 'a String')", "urlCluster"),
    ("SELECT * FROM s3('http://{server}/a/b.csv', 'CSV', 'a String')", "s3"),
    ("SELECT * FROM gcs('http://{server}/a/b.csv')", "gcs"),
    ("SELECT * FROM azureBlobStorage('http://{server}/', 'a', 'b')", "azureBlobStorage"),
    ("SELECT * FROM hdfs('hdfs://{server}/x', 'CSV', 'a String')", "hdfs"),
    ("SELECT * FROM iceberg('http://{server}/x')", "iceberg"),
    ("SELECT * FROM deltaLake('http://{server}/x')", "deltaLake"),
    ("SELECT * FROM icebergLocal('{folder}')", "icebergLocal"),
    ("SELECT * FROM remote('{server}', system.one)", "remote"),
    ("SELECT * FROM remoteSecure('{server}', 'system', 'one')", "remoteSecure"),
    ("SELECT * FROM cluster('default', system.one)", "cluster"),
    ("SELECT * FROM mysql('{server}', 'a', 'b', 'c', 'd')", "mysql"),
    ("SELECT * FROM postgresql('{server}', 'a', 'b', 'c', 'd')", "postgresql"),
    ("SELECT * FROM mongodb('{server}', 'a', 'b', 'c', 'd', 'a String')", "mongodb"),
    ("SELECT * FROM redis('{server}', 'a', 'a String')", "redis"),
    ("SELECT * FROM sqlite('{folder}/x.db', 't')", "sqlite"),
    ("SELECT * FROM jdbc('jdbc:x', 'a', 'b')", "jdbc"),
    ("SELECT * FROM odbc('DSN=x', 'a', 'b')", "odbc"),
    ("SELECT * FROM executable('id', 'CSV', 'a String')", "executable"),
    ("SELECT * FROM python(os)", "python"),
    ("SELECT * FROM Python('settings')", "Python"),
    ("SELECT * FROM merge('system', 'processes')", "merge"),
    ("SELECT * FROM loop(file('{secret}'))", "file"),
    ("SELECT * FROM format(CSV, 'a')", "format"),
    ("SELECT * FROM dictionary('d')", "dictionary"),
    ("SELECT * FROM filesystem('{folder}')", "filesystem"),
    ("SELECT * FROM viewExplain('EXPLAIN', '', (SELECT 1))", "viewExplain"),
    ("SELECT dictGet('d', 'a', 1)", "dictGet"),
    ("SELECT joinGet('j', 'a', 1)", "joinGet"),
    ("SELECT hasColumnInTable('{server}', 'tgw', 'probes', 'ts')", "hasColumnInTable"),
    ("SELECT aiGenerate('x')", "aiGenerate"),
    ("SELECT getMacro('x'), getServerSetting('x')", "getMacro"),
    ("SELECT filesystemAvailable()", "filesystemAvailable"),
    ("SELECT sleepEachRow(3) FROM numbers(1000)", "sleepEachRow"),
    ("SELECT 1 INTO OUTFILE '{target}'", "OUTFILE"),
    ("SELECT 1 into/**/outfile '{target}' FORMAT CSV", "OUTFILE"),
    ("SELECT 1 SETTINGS format_schema = '{secret}'", "format_schema"),
    ("SELECT 1 FORMAT Template SETTINGS format_template_row = '{secret}'", "format_template_row"),
    ("SELECT 1 FORMAT Protobuf SETTINGS output_format_schema = '{target}'", "output_format_schema"),
    ("SELECT 1 FROM (SELECT 1 SETTINGS additional_result_filter = 'file(1)')", "additional_result_filter"),
    ("SELECT 1 SETTINGS extremes, dialect = 'prql'", "dialect"),
    ("SELECT 1; DROP TABLE probes", "Multi-statements"),
    ("SELECT $'$ x $'$ ; DROP TABLE probes; '", "heredoc"),
    ("optimize = 1 SELECT 1", "Syntax"),
    ("SET ROLE owner", "session"),
    ("SET max_memory_usage = 0", "session"),
    ("USE system", "session"),
    ("EXECUTE AS default SELECT 1", "EXECUTE"),
    ("CREATE DICTIONARY d (k UInt64, v String) PRIMARY KEY k SOURCE(HTTP(URL 'http://{server}/' FORMAT 'CSV')) "
     "LAYOUT(FLAT()) LIFETIME(0)", "FILE|DICTIONARY|HTTP|reader may run"),
    ("CREATE DICTIONARY d (k UInt64, v String) PRIMARY KEY k SOURCE(FILE(PATH '{secret}' FORMAT 'CSV')) "
     "LAYOUT(FLAT()) LIFETIME(0)", "FILE|DICTIONARY|HTTP|reader may run"),
    ("CREATE TABLE x (a String) ENGINE = File(CSV, '{target}')", "reader may run|File"),
    ("CREATE TABLE x (a String) ENGINE = URL('http://{server}/', CSV)", "reader may run|URL"),
    ("CREATE TABLE x (a String) ENGINE = S3('http://{server}/a/b', 'CSV')", "reader may run|S3"),
    ("CREATE TABLE x ENGINE = MySQL('{server}', 'a', 'b', 'c', 'd')", "reader may run|MySQL"),
    ("CREATE TABLE x (a String) ENGINE = Distributed('c', 'd', 'e')", "reader may run|Distributed"),
    ("CREATE TABLE x (a String) ENGINE = Executable('id', 'CSV')", "reader may run|Executable"),
    ("CREATE TABLE x (a String DEFAULT file('{secret}')) ENGINE = Memory", "reader may run|file"),
    ("CREATE TABLE x (a String) ENGINE = MergeTree ORDER BY file('{secret}')", "reader may run|file"),
    ("CREATE TABLE x (a String) ENGINE = MergeTree ORDER BY a SETTINGS disk = disk(type = local, path = '{folder}/')",
     "reader may run|disk"),
    ("CREATE TABLE x (a String) ENGINE = MergeTree ORDER BY a SETTINGS storage_policy = 'p'",
     "reader may run|storage_policy"),
    ("CREATE TABLE x AS file('{secret}')", "reader may run|file"),
    ("CREATE VIEW x AS SELECT * FROM url('http://{server}/', 'CSV', 'a String')", "reader may run|url"),
    ("CREATE MATERIALIZED VIEW x ENGINE = Memory AS SELECT file('{secret}') AS a FROM probes", "reader may run|file"),
    ("CREATE MATERIALIZED VIEW x REFRESH EVERY 1 SECOND TO probes AS SELECT 1", "reader may run|Refresh"),
    ("CREATE DATABASE x ENGINE = Filesystem('{folder}')", "reader may run|Filesystem"),
    ("CREATE DATABASE x ENGINE = PostgreSQL('{server}', 'a', 'b', 'c')", "reader may run|PostgreSQL"),
    ("CREATE FUNCTION f AS x -> x", "reader may run|anyone may run"),
    ("CREATE NAMED COLLECTION c AS url = 'http://{server}/'", "reader may run|anyone may run"),
    ("CREATE USER mallory", "reader may run|anyone may run"),
    ("CREATE TEMPORARY TABLE mine (a UInt8)", "reader may run|temporary"),
    ("GRANT ALL ON *.* TO default", "may run"),
    ("ATTACH TABLE x FROM '{folder}' (a String) ENGINE = MergeTree ORDER BY a", "may run"),
    ("ATTACH DATABASE x ENGINE = Filesystem('{folder}')", "may run"),
    ("DETACH TABLE probes", "may run"),
    ("BACKUP DATABASE tgw TO File('{folder}/backup')", "may run|File"),
    ("RESTORE DATABASE tgw FROM File('{folder}/backup')", "may run|File"),
    ("ALTER TABLE probes FREEZE", "may run|FREEZE"),
    ("ALTER TABLE probes MODIFY SETTING disk = 'x'", "may run|may be changed"),
    ("ALTER TABLE probes MODIFY SETTING ttl_only_drop_parts = 1, storage_policy = 'x'", "may run|may be changed"),
    ("ALTER TABLE probes MODIFY SETTING `disk` = disk(type = 'local', path = '{folder}')", "may run|may be changed"),
    ("ALTER TABLE probes RESET SETTING storage_policy", "may run|may be changed"),
    ("ALTER TABLE probes ATTACH PARTITION ID 'x' FROM other", "may run|PARTITION"),
    ("ALTER TABLE probes UPDATE outcome = file('{secret}') WHERE 1", "may run|file"),
    ("INSERT INTO FUNCTION file('{target}', 'CSV', 'a UInt8') SELECT 1", "read|file"),
    ("INSERT INTO FUNCTION url('http://{server}/', 'CSV', 'a UInt8') SELECT 1", "read|url"),
    ("INSERT INTO FUNCTION file('{target}', 'CSV', 'a UInt8') FORMAT CSV\n1\n", "read|file"),
    ("INSERT INTO probes (prober) FROM INFILE '{secret}' FORMAT CSV", "read|INFILE"),
    ("INSERT INTO probes (prober) SELECT * FROM file('{secret}', 'LineAsString')", "read|file"),
    ("INSERT INTO probes (prober) VALUES (file('{secret}'))", "read|file"),
    ("INSERT INTO system.one VALUES (1)", "read|system"),
    ("DROP DATABASE system", "may run|system"),
    ("SYSTEM SHUTDOWN", "may run"),
    ("SYSTEM RELOAD CONFIG", "may run"),
]  # fmt: skip
# What only the writer may say.
WRITES = [
    "INSERT INTO probes VALUES (1)",
    "/* SELECT */ INSERT INTO probes (prober) SELECT 'mallory'",
    "WITH 1 AS x INSERT INTO probes (prober) SELECT 'mallory'",
    "EXPLAIN PIPELINE INSERT INTO probes (prober) SELECT 'mallory'",
    "CREATE TABLE mine (a UInt8) ENGINE = Memory",
    "CREATE DATABASE mine",
    "DROP TABLE probes",
    "DROP DATABASE tgw",
    "TRUNCATE TABLE probes",
    "ALTER TABLE probes DELETE WHERE 1",
    "ALTER TABLE probes MODIFY SETTING min_parts_to_merge_at_once = 24",
    "DELETE FROM probes WHERE 1",
    "OPTIMIZE TABLE probes FINAL",
    "RENAME TABLE probes TO mine",
    "EXCHANGE TABLES probes AND feeds",
    "CHECK TABLE probes",
]
# What a reader does not see.
HIDDEN = [
    "SELECT * FROM system.tables",
    "SELECT t.* FROM system.tables AS t",
    "SELECT COLUMNS('path') FROM system.databases",
    "SELECT * EXCEPT (data_paths) FROM system.tables",
    "SELECT data_paths FROM system.tables",
    "SELECT `data_paths`.size0 FROM system.tables",
    "SELECT name FROM system.databases WHERE data_path LIKE '/%'",
    "SELECT name FROM system.databases ORDER BY metadata_path",
    "SELECT x FROM (SELECT * FROM system.databases) AS t(a, b, x)",
    "WITH t AS (SELECT * FROM system.databases) SELECT name FROM t",
    "SELECT path FROM system.parts",
    "SELECT ('x',) IN (system.databases)",
    "SELECT query FROM system.processes",
    "SELECT query FROM `system`.`processes`",
    "SELECT query FROM SYSTEM.processes",
    "SELECT 1 IN system.processes",
    "SELECT * FROM {table:Identifier}",
    "SELECT query FROM system.query_log",
    "SELECT * FROM system.disks",
    "SELECT * FROM system.user_query_log",
    "SELECT * FROM system.server_settings",
    "SELECT * FROM system.build_options",
    "SELECT * FROM system.errors",
    "SELECT * FROM system.users",
    "SELECT * FROM system.stack_trace",
    "SELECT * FROM system.remote_data_paths",
    "SHOW PROCESSLIST",
    "SHOW GRANTS",
    "DESCRIBE system.disks",
]


@pytest.mark.parametrize("user", ["reader", "writer"])
@pytest.mark.parametrize("statement", ALLOWED)
def test_reads_are_allowed(warehouse: Any, statement: str, user: str) -> None:
    answer = warehouse.post(statement, user)
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("user", ["reader", "writer"])
@pytest.mark.parametrize(("statement", "why"), OUTSIDE)
def test_nobody_reaches_outside(warehouse: Any, outside: Outside, statement: str, why: str, user: str) -> None:
    answer = warehouse.post(outside.filled(statement), user)
    assert answer.status_code >= 400, answer.text
    assert answer.headers["X-ClickHouse-Exception-Code"] in ("497", "62", "48", "452", "115"), answer.text
    assert any(word in answer.text for word in why.split("|")), answer.text
    assert SECRET not in answer.text
    assert not (outside.folder / "written.csv").exists()
    assert outside.asked == []


@pytest.mark.parametrize("statement", WRITES)
def test_a_reader_changes_nothing(warehouse: Any, statement: str) -> None:
    answer = warehouse.post(statement, "reader")
    assert (answer.status_code, answer.headers["X-ClickHouse-Exception-Code"]) == (403, "497"), answer.text
    assert warehouse.rows("SELECT count() FROM probes WHERE prober = 'mallory'") == [(0,)]
    assert warehouse.rows("SELECT count() FROM system.tables WHERE name = 'mine'") == [(0,)]


@pytest.mark.parametrize("statement", HIDDEN)
def test_a_reader_sees_no_paths_and_no_others(warehouse: Any, statement: str) -> None:
    answer = warehouse.post(statement, "reader", param_table="system.processes")
    assert answer.status_code in (403, 404), answer.text
    assert str(warehouse.folder) not in answer.text


def test_a_parameter_names_no_function(warehouse: Any, outside: Outside) -> None:
    for statement in ("SELECT arrayMap({f:Identifier}, ['x'])", "SELECT * APPLY({f:Identifier}) FROM (SELECT 'x')"):
        answer = warehouse.post(statement, "reader", param_f="file")
        assert answer.status_code >= 400, answer.text
    answer = warehouse.post("SELECT {s:String}", "reader", param_s="file")
    assert answer.text == "file\n"


def test_long_values_hold_literals_alone(warehouse: Any, outside: Outside) -> None:
    warehouse.post("CREATE TABLE IF NOT EXISTS literals (a String) ENGINE = Memory")
    many = ", ".join(["('it''s')"] * 40_000)
    assert warehouse.post(f"INSERT INTO literals VALUES {many}").status_code == 200
    hostile = outside.filled(f"INSERT INTO literals VALUES (file('{{secret}}')), {many}")
    answer = warehouse.post(hostile)
    assert answer.status_code >= 400
    assert warehouse.rows("SELECT count(), countIf(a != 'it''s') FROM literals") == [(40_000, 0)]


def test_every_function_of_the_engine_has_been_looked_at(warehouse: Any) -> None:
    """A newer engine's functions are refused until someone has read what they do and written them down."""
    refused = {
        "file", "filesystemAvailable", "filesystemCapacity", "filesystemUnreserved", "joinGet", "joinGetOrNull",
        "getMacro", "getServerSetting", "getServerPort", "tcpPort", "FQDN", "fullHostName", "serverUUID",
        "showCertificate", "zookeeperSessionUptime", "getOSKernelVersion", "addressToLine", "addressToLineWithInlines",
        "addressToSymbol", "logTrace", "tid", "sleep", "sleepEachRow", "generateSerialID", "hasColumnInTable",
        "getClientHTTPHeader", "currentRequestURL", "currentHandler", "fuzzQuery", "aggThrow", "naiveBayesClassifier",
        "naiveBayesClassifierWithAllProbs", "naiveBayesClassifierWithProb", "evalMLMethod", "flameGraph",
    }  # fmt: skip
    families = ("dictGet", "dictHas", "dictIsIn", "region", "ai", "AI", "__")
    names = [str(name) for (name,) in warehouse.rows("SELECT name FROM system.functions")]
    assert len(names) > 1500
    assert refused <= set(names)
    unknown = {name for name in names if name not in allowed.FUNCTIONS | refused and not name.startswith(families)}
    assert unknown == set()
    assert not allowed.FUNCTIONS & refused
    assert set(allowed.FUNCTIONS) <= set(names)


def test_every_table_function_but_those_that_compute_is_refused(warehouse: Any) -> None:
    names = [str(name) for (name,) in warehouse.rows("SELECT name FROM system.table_functions")]
    assert len(names) > 50
    for name in names:
        if name.lower() not in allowed.TABLE_FUNCTIONS:
            for user in ("reader", "writer"):
                argument = "SELECT 1" if name == "viewIfPermitted" else "'a'"
                more = " ELSE null('a UInt8')" if name == "viewIfPermitted" else ""
                answer = warehouse.post(f"SELECT * FROM numbers(1), {name}({argument}{more})", user)
                assert answer.headers["X-ClickHouse-Exception-Code"] == "497", (name, answer.text)


def test_every_column_that_names_a_path_is_hidden(warehouse: Any) -> None:
    rows = warehouse.rows("SELECT table, name FROM system.columns WHERE database = 'system' AND name ILIKE '%path%'")
    assert len(rows) > 5
    for table, name in rows:
        assert table not in allowed.SYSTEM_TABLES or name in allowed.SYSTEM_TABLES[table], (table, name)


def test_no_value_that_a_reader_sees_is_a_path_of_the_server(warehouse: Any) -> None:
    there = {str(name) for (name,) in warehouse.rows("SELECT name FROM system.tables WHERE database = 'system'")}
    for table, hidden in allowed.SYSTEM_TABLES.items():
        if table in there:
            columns = f"* EXCEPT ({', '.join(sorted(hidden))})" if hidden else "*"
            answer = warehouse.post(f"SELECT {columns} FROM system.{table} LIMIT 5000", "reader")
            assert answer.status_code == 200, answer.text
            assert str(warehouse.folder) not in answer.text, table


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO tgw.t (a, `b c`) SETTINGS x = 1, y='z' FORMAT RowBinary\n\x01FORMAT CSV\n",
        "/* FORMAT CSV */ INSERT INTO TABLE tgw.t (a, `b c`) SETTINGS x = 1, y='z' FORMAT RowBinary \r\n\x01FORMAT CSV\n",  # noqa: E501
    ],
)
def test_an_insert_with_data_is_told_from_its_data(statement: str) -> None:
    found = insert_statement(statement)
    assert found is not None
    assert (found.target, found.form, found.settings) == ("tgw.t (a, `b c`)", "RowBinary", {"x": "1", "y": "z"})
    assert statement[found.data :] == "\x01FORMAT CSV\n"


@pytest.mark.parametrize(
    ("statement", "data"),
    [
        ('INSERT INTO t FORMAT JSONEachRow {"a": 1}', '{"a": 1}'),
        ("INSERT INTO t VALUES (1), (2)", "(1), (2)"),
        ("insert into t (format, values) values (1)", "(1)"),
        ("INSERT INTO t FORMAT CSV", ""),
        ("INSERT INTO t FORMAT CSV; \n1", "1"),
    ],
)
def test_where_data_begins(statement: str, data: str) -> None:
    found = insert_statement(statement)
    assert found is not None
    assert statement[found.data :] == data


@pytest.mark.parametrize(
    "statement", ["INSERT INTO t SELECT 1 FORMAT CSV", "SELECT 1", "INSERT INTO t SELECT 'VALUES'"]
)
def test_an_insert_without_data_runs_as_it_stands(statement: str) -> None:
    assert insert_statement(statement) is None
