"""What a statement is, and whether one may run it. The engine's own readonly mode is the second line of defence."""

from __future__ import annotations

import re
from dataclasses import dataclass

# Reads that stay inside the engine. Everything else that can stand after FROM and open a parenthesis is refused.
_TABLE_FUNCTIONS = {
    "numbers", "numbers_mt", "zeros", "zeros_mt", "values", "view", "generateseries", "generate_series",
}  # fmt: skip
_READS = {"SELECT", "WITH", "SHOW", "DESCRIBE", "DESC", "EXPLAIN", "EXISTS"}
# Functions and table functions of ClickHouse and chDB that reach outside the engine or change something.
_OUTSIDE = re.compile(
    r"^(file|filecluster|filesystem|url|urlcluster|executable|python|eval|input|sqlite|loop|merge|dictionary"
    r"|remote|remotesecure|cluster|clusterallreplicas|arrowstream|arrowflight|bigquery|cosn|oss|gcs|jdbc|odbc|mongodb"
    r"|mysql|postgresql|redis|ytsaurus|s3\w*|hdfs\w*|hudi\w*|iceberg\w*|deltalake\w*|paimon\w*|azureblobstorage\w*"
    r"|fuzzjson|fuzzquery|prometheus\w*|viewexplain|catboostevaluate|hascolumnintable"
    r"|dict(get|has|isin)\w*|joinget\w*|getmacro|sleep|sleepeachrow|executable\w*|ai\w+|generatesql)$"
)
# What a reader may change of a query of its own: how the answer is written, and smaller limits' names.
_READER_SETTINGS = re.compile(
    r"^(output_format_\w+|date_time_output_format|format_\w*_settings|extremes|result_overflow_mode|max_result_rows"
    r"|max_result_bytes|max_rows_to_read|max_bytes_to_read|limit|offset|use_query_cache|session_timezone"
    r"|join_use_nulls|prefer_column_name_to_alias|final|log_comment)$"
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
    r"^\s*INSERT\s+INTO\s+(?:TABLE\s+)?(?P<target>.+?)(?:\s+SETTINGS\s+(?P<settings>.+?))?"
    r"\s+FORMAT\s+(?P<form>\w+)\s*?;?[ \t]*(?:\r?\n|$)",
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
            # Escapes hide a name (`f\151le` is `file`): what is left of them matches no name that is allowed.
            out.append(("escaped" if "\\" in text else "word", text[1:-1]))
        else:
            out.append((kind, text))
    return out


def refusal(statement: str) -> str | None:
    """Why a reader may not run this statement; None when it may."""
    tokens = _tokens(statement)
    first = next((text.upper() for kind, text in tokens if not (kind == "other" and text == "(")), "")
    if first not in _READS:
        return f"a reader may only read: expected one of {', '.join(sorted(_READS))}, got {first or 'nothing'}"
    return outside(tokens) or _reader_only(tokens)


def writer_refusal(statement: str) -> str | None:
    """Why not even the writer may run this statement here: files and other servers are not the warehouse's."""
    tokens = _tokens(statement)
    if tokens and tokens[0][1].upper() == "SET":
        return "a setting lasts for one request: give it in the URL or in SETTINGS"
    return outside(tokens)


def reader_setting(name: str) -> bool:
    """Whether a reader may choose this setting of its own query."""
    return _READER_SETTINGS.match(name) is not None


def outside(tokens: list[tuple[str, str]]) -> str | None:
    """What of a statement reaches outside the warehouse; None when nothing does."""
    if any(kind == "other" and text == ";" for kind, text in tokens[:-1]):
        return "one statement at a time"
    if any(kind == "other" and text in "'\"`" for kind, text in tokens):
        return "a quotation that does not end"
    if any(kind == "other" and not text.isascii() for kind, text in tokens):
        # The engine takes typographic quotes for quotes and odd spaces for spaces.
        return "a character outside ASCII that stands in no quotation"
    if any(kind == "escaped" for kind, _ in tokens):
        return "a quoted name with an escape in it"
    for i, (kind, text) in enumerate(tokens):
        if kind != "word":
            continue
        name = text.lower()
        following = tokens[i + 1][1] if i + 1 < len(tokens) else ""
        before = [t.upper() for _, t in tokens[max(0, i - 2) : i]]
        if name in ("outfile", "infile"):
            return f"{text.upper()} names a file"
        # SELECT * APPLY(f), and APPLY f, call a function by its bare name.
        called = following == "(" or before[-1:] == ["APPLY"] or before == ["APPLY", "("]
        if called and _OUTSIDE.match(name):
            return f"{text}() reaches outside the warehouse"
        if following == "." and name == "default":
            return "the database default is a view of the file system"
        if before[-1:] == ["USE"]:
            return "the database is fixed"
    return None


def _reader_only(tokens: list[tuple[str, str]]) -> str | None:
    for i, (kind, text) in enumerate(tokens):
        following = tokens[i + 1][1] if i + 1 < len(tokens) else ""
        if kind != "word":
            continue
        before = tokens[i - 1][1].upper() if i else ""
        if before in {"FROM", "JOIN"} and following == "(" and text.lower() not in _TABLE_FUNCTIONS:
            return f"{text}() is not among the table functions a reader may use"
        if text.upper() == "SETTINGS" and i + 2 < len(tokens) and tokens[i + 2][1] == "=":
            for (_, name), (_, sign) in zip(tokens[i + 1 :], tokens[i + 2 :], strict=False):
                if sign == "=" and not reader_setting(name.lower()):
                    return f"a reader may not change the setting {name}"
    return None
