"""Words as the engine's lexer cuts them, in linear time."""

from __future__ import annotations

import contextlib
import time

import pytest

from warehouse.tokens import TokenError, tokens, word


def cut(statement: str) -> list[tuple[str, str]]:
    return [(token.kind, token.text) for token in tokens(statement)]


def test_what_is_what() -> None:
    assert cut("SELECT `a b`.\"c\", 'it''s \\' ;' -- ; x\n/* ' */, 1e5 # y\n!= $t$ ; ' $t$ FROM a$b") == [
        ("word", "SELECT"), ("name", "a b"), ("sign", "."), ("name", "c"), ("sign", ","), ("text", "'it''s \\' ;'"),
        ("sign", ","), ("number", "1e5"), ("sign", "!"), ("sign", "="), ("text", "$t$ ; ' $t$"), ("word", "FROM"),
        ("word", "a$b"),
    ]  # fmt: skip


def test_a_name_is_no_keyword() -> None:
    plain, quoted = tokens("select `select`")
    assert (word(plain), word(quoted), word(None)) == ("SELECT", "", "")


def test_a_token_knows_where_it_stands() -> None:
    statement = "/* x */ SELECT 'a' , `b`"
    assert [statement[token.start : token.end] for token in tokens(statement)] == ["SELECT", "'a'", ",", "`b`"]


@pytest.mark.parametrize(
    ("statement", "position"),
    [
        ("SELECT 'a", 8),
        ("SELECT `a", 8),
        ('SELECT "a\\"', 8),
        ("SELECT 1 /* x", 10),
        ("SELECT $a$ x", 8),
        # The engine takes any characters for a heredoc's mark: `$'$` would hide the end of a statement.
        ("SELECT $'$ x $'$ ; DROP TABLE t; '", 8),
        ("SELECT $ a$ x $ a$", 8),
        ("SELECT “a”", 8),
        ("SELECT\u00a01", 7),
        ("SELECT 1\0", 9),
        ("SELECT '\0'", 9),
        ("SELECT `f\\x69le`", 8),
        ("SELECT `a``b`", 8),
        ("SELECT `a\n Function b`", 8),
        ("SELECT \x01", 8),
    ],
)
def test_what_could_be_cut_otherwise_is_refused(statement: str, position: int) -> None:
    with pytest.raises(TokenError) as raised:
        tokens(statement)
    assert raised.value.position == position


@pytest.mark.parametrize(
    "hostile",
    [
        "".join(f"$t{i}$ " for i in range(30_000)),
        "/*" * 120_000,
        "/*/" * 80_000,
        "'" * 250_001,
        "'" + "''" * 120_000,
        "'\\'" * 80_000,
        "`" * 250_001,
        '"' + '""' * 120_000,
        "SELECT " + "1," * 120_000 + "1",
        "-" * 250_000,
        "-- x\n" * 50_000,
        "a$" * 120_000,
        "$" * 250_000,
        "$$" + "x" * 250_000,
        " \t" * 120_000,
    ],
    ids=range(15),
)
def test_the_largest_statement_takes_no_second(hostile: str) -> None:
    started = time.process_time()
    with contextlib.suppress(TokenError):
        tokens(hostile)
    assert time.process_time() - started < 1
