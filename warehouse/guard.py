"""What a statement is, and whether a reader may run it. The engine's own readonly mode is the second line of defence."""

from __future__ import annotations

import re
from dataclasses import dataclass

# Reads that stay inside the engine. Everything else that can stand after FROM and open a parenthesis is refused.
_TABLE_FUNCTIONS = {"numbers", "numbers_mt", "zeros", "zeros_mt", "values", "view", "generateseries", "generate_series"}
_READS = {"SELECT", "WITH", "SHOW", "DESCRIBE", "DESC", "EXPLAIN", "EXISTS"}
# Functions and table functions of ClickHouse and chDB that reach outside the engine or change something.
_OUTSIDE = re.compile(
    r"^(file|filecluster|filesystem|url|urlcluster|executable|python|eval|input|format|sqlite|loop|merge|dictionary"
    r"|remote|remotesecure|cluster|clusterallreplicas|arrowstream|bigquery|cosn|oss|gcs|jdbc|odbc|mongodb|mysql"
    r"|postgresql|redis|ytsaurus|s3\w*|hdfs\w*|hudi\w*|iceberg\w*|deltalake\w*|paimon\w*|azureblobstorage\w*"
    r"|fuzzjson|fuzzquery|mergetree\w*|prometheus\w*|timeseries\w*|viewexplain|catboostevaluate)$"
)
_TOKEN = re.compile(
    r"""\s+|--[^\n]*|\#[!\x20][^\n]*|/\*.*?\*/       # space and comments
    |(?P<text>'(?:[^'\\]|\\.|'')*')
    |(?P<quoted>`(?:[^`\\]|\\.|``)*`|"(?:[^"\\]|\\.|"")*")
    |(?P<heredoc>\$(\w*)\$.*?\$\4\$)
    |(?P<word>[A-Za-z_][A-Za-z0-9_]*)
    |(?P<other>.)""",
    re.VERBOSE | re.DOTALL,
)
_INSERT = re.compile(
    r"^\s*INSERT\s+INTO\s+(?:TABLE\s+)?(?P<target>.+?)(?:\s+SETTINGS\s+(?P<settings>.+?))?\s+FORMAT\s+(?P<form>\w+)\s*;?[ \t]*(?:\r?\n|$)",
    re.IGNORECASE | re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class InsertStatement:
    """An INSERT whose data follows. `target`: table and columns; `data`: where it starts in the statement's bytes."""

    target: str
    form: str
    settings: dict[str, str]
    data: int


def insert_statement(statement: str) -> InsertStatement | None:
    """The INSERT ... FORMAT that this is; None for anything else (INSERT ... SELECT and VALUES run as they stand)."""
    found = _INSERT.match(statement)
    if found is None or re.search(r"\bSELECT\b", found["target"], re.IGNORECASE) or found["form"].upper() == "VALUES":
        return None
    settings = {}
    for pair in (found["settings"] or "").split(","):
        name, _, value = pair.partition("=")
        if name.strip():
            settings[name.strip()] = value.strip().strip("'")
    return InsertStatement(found["target"].strip(), found["form"], settings, found.end())


def _tokens(statement: str) -> list[tuple[str, str]]:
    """(kind, text) without space and comments; quoted identifiers without their quotes."""
    out = []
    for match in _TOKEN.finditer(statement):
        kind = match.lastgroup
        if kind is None:
            continue
        text = match[0]
        if kind == "quoted":
            out.append(("word", text[1:-1]))
        else:
            out.append((kind, text))
    return out


def refusal(statement: str) -> str | None:
    """Why a reader may not run this statement; None when it may."""
    tokens = _tokens(statement)
    words = [text.upper() for kind, text in tokens if kind == "word"]
    first = next((text.upper() for kind, text in tokens if not (kind == "other" and text == "(")), "")
    if first not in _READS:
        return f"a reader may only read: expected one of {', '.join(sorted(_READS))}, got {first or 'nothing'}"
    if any(kind == "other" and text == ";" for kind, text in tokens[:-1]):
        return "one statement at a time"
    if any(kind == "other" and text in "'\"`" for kind, text in tokens):
        return "a quotation that does not end"
    if "OUTFILE" in words:
        return "INTO OUTFILE writes a file"
    for i, (kind, text) in enumerate(tokens):
        if kind != "word":
            continue
        following = tokens[i + 1][1] if i + 1 < len(tokens) else ""
        if following == "(" and _OUTSIDE.match(text.lower()):
            return f"{text}() reaches outside the warehouse"
        if following == "." and text.lower() == "default":
            return "the database default is a view of the file system"
        before = tokens[i - 1][1].upper() if i else ""
        if before in {"FROM", "JOIN"} and following == "(" and text.lower() not in _TABLE_FUNCTIONS:
            return f"{text}() is not among the table functions a reader may use"
        if before == "USE":
            return "the database is fixed"
    return None
