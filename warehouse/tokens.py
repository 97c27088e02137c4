"""A statement's words as ClickHouse's lexer cuts them, in linear time; what could be cut otherwise is refused.

The engine's parser says what a statement is (`syntax.py`). These tokens see to what must be known before it may be
asked (one statement, all quotations ended), and to what its tree does not show.
"""

from __future__ import annotations

import re
from typing import NamedTuple

_QUOTED = re.compile(r"""'(?:[^'\\]|\\.|'')*+'|`(?:[^`\\]|\\.|``)*+`|"(?:[^"\\]|\\.|"")*+\"""", re.DOTALL)
_SPACE = re.compile(r"[ \t\n\r\f\v]+|--[^\n]*+|\#[!\x20][^\n]*+")
_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_$]*+")
_NUMBER = re.compile(r"[0-9][A-Za-z0-9_]*+")
_HEREDOC = re.compile(r"\$[A-Za-z0-9_]*+\$")


class TokenError(Exception):
    """A statement that is not cut into words. `position`: of the character, from 1."""

    def __init__(self, position: int, text: str) -> None:
        self.position = position
        super().__init__(f"Syntax error: failed at position {position}: {text}")


class Token(NamedTuple):
    """`kind`: word, name (a quoted identifier), text (a string or heredoc), number or sign (one character)."""

    kind: str
    text: str
    # Where it starts and ends in the statement.
    start: int
    end: int


def tokens(statement: str) -> list[Token]:
    """The statement's tokens without space and comments; names without their quotes. TokenError."""
    if (at := statement.find("\0")) >= 0:
        raise TokenError(at + 1, "a NUL character")
    out: list[Token] = []
    at, end = 0, len(statement)
    while at < end:
        character = statement[at]
        if (found := _SPACE.match(statement, at)) is not None:
            at = found.end()
        elif statement.startswith("/*", at):
            close = statement.find("*/", at + 2)
            if close < 0:
                raise TokenError(at + 1, "a comment that does not end")
            at = close + 2
        elif (found := _WORD.match(statement, at)) is not None:
            out.append(Token("word", found[0], at, found.end()))
            at = found.end()
        elif (found := _NUMBER.match(statement, at)) is not None:
            out.append(Token("number", found[0], at, found.end()))
            at = found.end()
        elif character in "'`\"":
            found = _QUOTED.match(statement, at)
            if found is None:
                raise TokenError(at + 1, "a quotation that does not end")
            if character == "'":
                out.append(Token("text", found[0], at, found.end()))
            else:
                name = found[0][1:-1]
                # Escapes and line breaks could hide a name from whoever looks for it.
                if "\\" in name or character * 2 in name or not name.isprintable():
                    raise TokenError(at + 1, "a quoted name with an escape or a control character in it")
                out.append(Token("name", name, at, found.end()))
            at = found.end()
        elif character == "$":
            mark = _HEREDOC.match(statement, at)
            close = statement.find(mark[0], mark.end()) if mark is not None else -1
            if mark is None or close < 0:
                raise TokenError(at + 1, "a $ that begins no heredoc")
            out.append(Token("text", statement[at : close + len(mark[0])], at, close + len(mark[0])))
            at = close + len(mark[0])
        elif not character.isascii() or not character.isprintable():
            # The engine takes typographic quotes for quotes and odd spaces for spaces.
            raise TokenError(at + 1, "a character outside ASCII that stands in no quotation")
        else:
            out.append(Token("sign", character, at, at + 1))
            at += 1
    return out


def word(token: Token | None) -> str:
    """An unquoted word in capitals; empty for anything else."""
    return token.text.upper() if token is not None and token.kind == "word" else ""
