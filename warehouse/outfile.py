"""Where an answer goes: a statement's INTO OUTFILE clause, which names a pipe of ours.

The engine writes an answer into a file as it comes, through one writer of its format from the beginning to the end.
That is the only way in which it streams every format: its streaming calls begin a new document (with its header) in
every chunk.
"""

from __future__ import annotations

from warehouse.tokens import Token, TokenError, tokens, word

_READS = frozenset({"SELECT", "WITH", "SHOW", "DESCRIBE", "DESC", "EXPLAIN", "EXISTS"})


def cut(statement: str) -> list[Token]:
    """The statement's tokens without the semicolons at its end; none for what is not cut into tokens."""
    try:
        found = tokens(statement)
    except TokenError:
        return []
    while found and found[-1].kind == "sign" and found[-1].text == ";":
        found.pop()
    return found


def reads(found: list[Token]) -> bool:
    """Whether these are a statement whose answer may go into a pipe."""
    first = next((token for token in found if token.text != "("), None)
    return word(first) in _READS and not any(word(token) in ("INSERT", "OUTFILE") for token in found)


def format_clause(found: list[Token]) -> tuple[int, int] | None:
    """Where the FORMAT clause of a whole statement stands, as two indices of its tokens; None when it has none."""
    depth = 0
    for i in range(len(found) - 1, 0, -1):
        token = found[i]
        if token.kind == "sign":
            depth += (token.text in ")]}") - (token.text in "([{")
        elif depth == 0 and word(token) == "FORMAT" and i + 1 < len(found):
            following = word(found[i + 2]) if i + 2 < len(found) else "SETTINGS"
            if found[i + 1].kind == "word" and following == "SETTINGS":
                return i, i + 2
    return None


def named_format(statement: str) -> str | None:
    """The format that a statement's own FORMAT clause names."""
    found = cut(statement)
    clause = format_clause(found)
    return found[clause[0] + 1].text if clause else None


def without_format(statement: str) -> str:
    """The statement without its own FORMAT clause and the semicolons at its end."""
    found = cut(statement)
    end = found[-1].end if found else len(statement)
    clause = format_clause(found)
    if clause is None:
        return statement[:end]
    return statement[: found[clause[0]].start] + statement[found[clause[1] - 1].end : end]


def into(statement: str, form: str, sink: int) -> str:
    """The statement with its answer in the pipe `sink` [file descriptor], in the format it names, or else in `form`."""
    found = cut(statement)
    end = found[-1].end if found else len(statement)
    head, rest = statement[:end], ""
    if (clause := format_clause(found)) is not None:
        form = found[clause[0] + 1].text
        head, rest = statement[: found[clause[0]].start], statement[found[clause[1] - 1].end : end]
    # A pipe is opened like a file; TRUNCATE is what lets one be there already.
    return f"{head}\nINTO OUTFILE '/dev/fd/{sink}' TRUNCATE FORMAT {form}{rest}"
