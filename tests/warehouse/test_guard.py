"""What a reader may say. The statements that are refused are tried on the real engine too, in test_reader.py."""

from __future__ import annotations

import pytest

from warehouse.guard import insert_statement, reader_setting, refusal, writer_refusal

ALLOWED = [
    "SELECT 1",
    "select count() from probes where outcome = 'silent' format JSONEachRow",
    "/* a comment; with a semicolon */ SELECT 'INSERT INTO t; DROP TABLE t' AS text",
    "WITH a AS (SELECT 1 AS x) SELECT x FROM a",
    "(SELECT 1) UNION ALL (SELECT 2);",
    "SELECT `file` FROM (SELECT 1 AS `file`)",
    "SELECT cluster, file FROM (SELECT 'a' AS cluster, 'b' AS file)",
    "SELECT * FROM numbers(3) JOIN numbers(4) AS b ON 1 = 1",
    "SELECT format('{} {}', 'a', 'b')",
    "SELECT 1 SETTINGS output_format_json_quote_64bit_integers = 0, session_timezone = 'UTC'",
    "SELECT 1 SETTINGS -- a remark\n extremes = 1",
    "SHOW TABLES",
    "DESCRIBE TABLE probes",
    "EXPLAIN SELECT 1",
    "EXISTS TABLE probes",
    "SELECT 'it''s' || 'a\\'b' -- don't",
    "SELECT 'ü', `grün` FROM (SELECT 1 AS `grün`)",
]
REFUSED = [
    ("", "got nothing"),
    ("INSERT INTO probes VALUES (1)", "may only read"),
    ("  /* x */ -- y\n INSERT INTO probes SELECT * FROM probes", "may only read"),
    ("SELECT 1; DROP TABLE probes", "one statement"),
    ("DROP TABLE probes", "may only read"),
    ("SYSTEM FLUSH LOGS", "may only read"),
    ("SET readonly = 0", "may only read"),
    ("USE system", "may only read"),
    ("KILL QUERY WHERE 1", "may only read"),
    ("SELECT 1 INTO OUTFILE '/tmp/x'", "OUTFILE"),
    ("SELECT 1 into/**/outfile '/tmp/x'", "OUTFILE"),
    ("SELECT * FROM file('/etc/passwd')", "file()"),
    ("SELECT * FROM file/**/('/etc/passwd')", "file()"),
    ("SELECT * FROM `file`('/etc/passwd')", "file()"),
    ("SELECT * FROM \"file\"('/etc/passwd')", "file()"),
    ("SELECT * FROM `f\\x69le`('/etc/passwd')", "escape"),
    ("SELECT * FROM “file”('/etc/passwd')", "ASCII"),
    ("SELECT file\u2060('/etc/passwd')", "ASCII"),
    ("SELECT file('/etc/passwd')", "file()"),
    ("SELECT * APPLY(file) FROM (SELECT '/etc/passwd' AS a)", "file()"),
    ("SELECT * APPLY file FROM (SELECT '/etc/passwd' AS a)", "file()"),
    ("SELECT * FROM numbers(1), url('http://127.0.0.1/', 'CSV', 'a String')", "url()"),
    ("SELECT * FROM s3('https://example.com/a.csv')", "s3()"),
    ("SELECT * FROM executable('id', 'CSV', 'a String')", "executable()"),
    ("SELECT * FROM remote('127.0.0.1', system.one)", "remote()"),
    ("SELECT * FROM python(x)", "python()"),
    ("SELECT * FROM generateRandom('a Int8')", "table functions"),
    ("SELECT * FROM default.`/etc/passwd`", "file system"),
    ("SELECT * FROM `default`.`/etc/passwd`", "file system"),
    ("DESCRIBE TABLE file('/etc/passwd')", "file()"),
    ("EXPLAIN SELECT * FROM url('http://x')", "url()"),
    ("SELECT 1 SETTINGS max_execution_time = 0", "max_execution_time"),
    ("SELECT 1 SETTINGS extremes = 1, max_memory_usage = 0", "max_memory_usage"),
    ("SELECT * FROM (SELECT 1 SETTINGS/**/max_threads=99)", "max_threads"),
    ("SELECT 'a", "does not end"),
    ("SELECT sleepEachRow(3) FROM numbers(1000)", "sleepEachRow()"),
]


@pytest.mark.parametrize("statement", ALLOWED)
def test_reads_are_allowed(statement: str) -> None:
    assert refusal(statement) is None


@pytest.mark.parametrize(("statement", "why"), REFUSED)
def test_all_else_is_refused_with_a_reason(statement: str, why: str) -> None:
    assert why in (refusal(statement) or "nothing")


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT * FROM file('/etc/passwd')",
        "INSERT INTO FUNCTION file('/tmp/x.csv') SELECT 1",
        "CREATE TABLE t (a UInt8) ENGINE = File(CSV, '/tmp/x.csv')",
        "CREATE TABLE t (a UInt8) ENGINE = URL('http://127.0.0.1/', CSV)",
        "SELECT 1 INTO OUTFILE '/tmp/x'",
        "INSERT INTO probes FROM INFILE '/etc/passwd' FORMAT CSV",
        "USE system",
    ],
)
def test_files_and_other_servers_are_not_the_writers_either(statement: str) -> None:
    assert writer_refusal(statement) is not None


@pytest.mark.parametrize(
    "statement",
    ["INSERT INTO probes SELECT * FROM probes", "DROP TABLE t", "ALTER TABLE t DELETE WHERE 1", "SELECT 1"],
)
def test_a_writer_may_write(statement: str) -> None:
    assert writer_refusal(statement) is None


@pytest.mark.parametrize("name", ["max_execution_time", "max_threads", "allow_ddl", "max_memory_usage"])
def test_limits_are_not_the_readers_to_choose(name: str) -> None:
    assert not reader_setting(name)


def test_an_insert_with_data_is_told_from_its_data() -> None:
    found = insert_statement("INSERT INTO tgw.t (a, `b c`) SETTINGS x = 1, y='z' FORMAT RowBinary\n\x01FORMAT CSV\n")
    assert found is not None
    assert (found.target, found.form, found.settings) == ("tgw.t (a, `b c`)", "RowBinary", {"x": "1", "y": "z"})
    assert "INSERT INTO tgw.t (a, `b c`) SETTINGS x = 1, y='z' FORMAT RowBinary\n\x01FORMAT CSV\n"[found.data :] == (
        "\x01FORMAT CSV\n"
    )


@pytest.mark.parametrize(
    "statement",
    ["INSERT INTO t SELECT 1 FORMAT CSV", "INSERT INTO t FORMAT VALUES (1)", "INSERT INTO t VALUES (1)", "SELECT 1"],
)
def test_an_insert_without_data_runs_as_it_stands(statement: str) -> None:
    assert insert_statement(statement) is None
