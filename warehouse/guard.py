"""Whether one may run a statement: the engine's parser says what it is made of, `allowed.py` what it may be made of.

The engine's own grants (`grants.py`) are the second line: they hold whatever this file overlooks, but for what asks no
grant there: scalar functions that read files, tables of `system`, INTO OUTFILE.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from threading import Lock

from warehouse import allowed, choices, syntax
from warehouse.refusals import Refusal
from warehouse.syntax import Node
from warehouse.tokens import Token, TokenError, tokens, word

Parse = Callable[[str, Mapping[str, str]], str]
_KEPT, _KEPT_LENGTH = 512, 8192
# Words that begin what is neither read nor written here, so that they are told as such and not as a syntax error.
_SESSION = {"SET", "USE", "BEGIN", "COMMIT", "ROLLBACK"}


@dataclass(frozen=True, slots=True)
class Verdict:
    """A statement that may run. `kind`: the root of its tree; `form`: the format that it names, if it does.

    `reads`: it changes nothing.
    """

    kind: str
    form: str | None
    reads: bool


@dataclass(frozen=True, slots=True)
class Insert:
    """An INSERT whose data follows. `target`: table and columns; `head`: where the statement ends, `data`: where its
    data starts, both in characters.
    """

    target: str
    form: str
    settings: dict[str, str]
    head: int
    data: int


def denied(status: str) -> Refusal:
    """ACCESS_DENIED with its reason."""
    return Refusal(497, f"Not enough privileges: {status}")


class Guard:
    """What may run on an engine.

    `parse`: EXPLAIN AST of a statement with its parameters, as TabSeparated text; raises what the engine says of it.
    `functions`, `table_functions`: the names the engine knows.
    """

    def __init__(
        self,
        parse: Parse,
        functions: Iterable[str],
        table_functions: Iterable[str],
        policy: choices.Policy,
    ) -> None:
        self._parse = parse
        self._policy = policy
        allowed_names = {name.lower() for name in allowed.FUNCTIONS}
        # Refused is what the engine has and the list has not; what neither has, the engine does not know.
        self._functions = {name.lower() for name in functions} - allowed_names
        self._all_table_functions = {name.lower() for name in table_functions}
        self._table_functions = self._all_table_functions - allowed_names - allowed.TABLE_FUNCTIONS
        self._kept: OrderedDict[tuple[str, bool, tuple[tuple[str, str], ...]], Verdict] = OrderedDict()
        self._lock = Lock()

    def check(self, statement: str, parameters: Mapping[str, str], *, reader: bool) -> Verdict:
        """What the statement is; Refusal, or what the engine says of its syntax. Takes about a millisecond."""
        # Tables and databases may be parameters; the whole of them is part of the question.
        key = (statement, reader, tuple(sorted(parameters.items())))
        size = len(statement) + sum(len(value) for value in parameters.values())
        with self._lock:
            if (kept := self._kept.get(key)) is not None:
                self._kept.move_to_end(key)
                return kept
        verdict = self._checked(statement, parameters, reader)
        if size <= _KEPT_LENGTH:
            with self._lock:
                self._kept[key] = verdict
                if len(self._kept) > _KEPT:
                    self._kept.popitem(last=False)
        return verdict

    def _checked(self, statement: str, parameters: Mapping[str, str], reader: bool) -> Verdict:
        cut = _cut(statement)
        while cut and cut[-1].text == ";" and cut[-1].kind == "sign":
            cut.pop()
        _one_statement(cut)
        self._words(cut, parameters)
        clauses = self._policy.clauses(cut, reader=reader)
        # What follows the last token, a `;` or a comment, is none of the parser's.
        printed = self._parse(statement[: cut[-1].end], parameters)
        try:
            root = syntax.tree(printed)
        except ValueError as error:
            raise denied(f"the statement's tree cannot be read: {error}") from None
        self._nodes(root, cut, reader, clauses)
        reads = root.kind in allowed.READS
        if reader and not reads:
            raise denied(f"a reader may only read, got {_first(cut)}")
        return Verdict(root.kind, _form(root, cut), reads)

    def _words(self, cut: list[Token], parameters: Mapping[str, str]) -> None:
        """What the tree does not show: files, and functions that are named without being called."""
        for i, token in enumerate(cut):
            if token.kind not in ("word", "name"):
                continue
            name = token.text.lower()
            if name in ("outfile", "infile") and word(token):
                raise denied(f"{name.upper()} names a file")
            if name in self._functions:
                raise denied(f"the function {token.text} is not among those that may be called")
            if name == "apply" and (following := _called_by_apply(cut[i + 1 :])) in self._table_functions:
                raise denied(f"the function {following} is not among those that may be called")
        for i in range(len(cut) - 3):
            # {name:Identifier}: a name like any other.
            if cut[i].text == "{" and word(cut[i + 3]) == "IDENTIFIER":
                value = parameters.get(cut[i + 1].text, "")
                if value.lower() in self._functions:
                    raise denied(f"the parameter {cut[i + 1].text} names the function {value}")
        if _first(cut) == "SHOW" and any(token.text == "(" or word(token) == "WHERE" for token in cut):
            raise denied("SHOW takes LIKE here, and no WHERE: ask system.tables")

    def _nodes(self, root: Node, cut: list[Token], reader: bool, clauses: int) -> None:
        nodes = allowed.READS if reader else allowed.WRITES
        if root.kind not in nodes:
            raise denied(f"{_first(cut)} is not among the statements that {'a reader' if reader else 'anyone'} may run")
        if root.kind == "Explain":
            if root.name not in allowed.EXPLAINED:
                raise denied(f"{root.name} is not among what may be explained")
            if any(child.kind not in ("Set", "SelectWithUnionQuery", "Identifier") for child in root.children):
                raise denied("EXPLAIN is for a SELECT")
        elif not reader:
            _write(root, cut)
        found = 0
        hidden: set[str] = set()
        for node in root.all():
            if node.kind not in nodes:
                raise denied(f"a statement with {node.kind} in it is not among those that may be run")
            if node.kind == "Set" and not (node.parent is root and root.kind == "Explain"):
                found += 1
            elif node.kind == "Function":
                self._function(node)
            elif node.kind in ("TableIdentifier", "Identifier") and reader:
                hidden |= self._table(node)
        if found > clauses:
            raise denied("a SETTINGS clause that cannot be read")
        if hidden:
            _columns(root, hidden)

    def _function(self, node: Node) -> None:
        name = node.name.lower()
        if node.within("TableExpression", "InsertQuery", "CreateQuery"):
            if name in self._all_table_functions and name not in allowed.TABLE_FUNCTIONS:
                raise denied(f"the table function {node.name} is not among those that may be read")
        elif name in self._table_functions or name in self._functions:
            raise denied(f"the function {node.name} is not among those that may be called")

    def _table(self, node: Node) -> set[str]:
        """The columns of a table that a reader does not see; Refusal for a table of `system` that is none of its."""
        database, dot, rest = node.name.partition(".")
        if not dot or database.lower() != "system":
            return set()
        table = rest.partition(".")[0]
        if table not in allowed.SYSTEM_TABLES:
            raise denied(f"system.{table} is not among the tables that a reader may read")
        hidden = allowed.SYSTEM_TABLES[table]
        if hidden and node.kind == "Identifier" and rest == table:
            raise denied(f"system.{table} as a set, of which a reader does not see all columns")
        return set(hidden)


def insert_statement(statement: str) -> Insert | None:
    """The INSERT with data, by FORMAT or VALUES, that this is; None for anything else."""
    begun = _INSERT.match(statement)
    if begun is None:
        return None
    for found in islice(_DATA.finditer(statement, begun.end()), 8):
        try:
            cut = tokens(statement[: found.end("head")])
        except TokenError:
            continue
        words = [word(token) for token in cut]
        at = len(words) - (1 if found["form"] is None else 2)
        depth = sum(_DEPTH.get(token.text, 0) for token in cut)
        if at < 3 or words[at] not in ("FORMAT", "VALUES") or depth:
            continue
        if "SELECT" in words:
            return None
        start = 3 if words[2] == "TABLE" else 2
        end = words.index("SETTINGS", start) if "SETTINGS" in words[start:at] else at
        chosen = dict(choices.pairs(cut[end + 1 : at])) if end < at else {}
        target = statement[cut[start].start : cut[end - 1].end]
        return Insert(target, found["form"] or "Values", chosen, found.end("head"), found.end())
    return None


# A comment may stand before it. Its data begins after the format's line, or where something stands in that line.
_INSERT = re.compile(r"(?:\s|--[^\n]*+\n|/\*.*?\*/)*+INSERT\s++INTO\b", re.IGNORECASE | re.DOTALL)
_DATA = re.compile(r"\b(?P<head>FORMAT\s++(?P<form>\w++)|VALUES\b)[ \t\f]*+(?:;[ \t\f]*+)?(?:\r?\n)?", re.IGNORECASE)
_DEPTH = {"(": 1, ")": -1}


def _cut(statement: str) -> list[Token]:
    try:
        return tokens(statement)
    except TokenError as error:
        raise Refusal(62, str(error)) from None


def _one_statement(cut: list[Token]) -> None:
    if not cut:
        raise Refusal(62, "Syntax error: Empty query")
    for token in cut:
        if token.kind == "sign" and token.text == ";":
            raise Refusal(
                62, f"Syntax error (Multi-statements are not allowed): failed at position {token.start + 1} (;)"
            )
    if len(cut) > 1 and cut[1].text == "=":
        # As an option of EXPLAIN AST it would be read otherwise than alone.
        raise Refusal(62, f"Syntax error: failed at position {cut[0].start + 1} ({cut[0].text})")
    if _first(cut) in _SESSION:
        raise Refusal(
            48, f"{_first(cut)} lasts for a session, and there are none: give settings and database with the request"
        )


def _first(cut: list[Token]) -> str:
    return next((word(token) or token.text for token in cut if token.text != "("), "nothing")


def _called_by_apply(following: list[Token]) -> str:
    names = [token.text.lower() for token in following[:2] if token.kind in ("word", "name")]
    return names[0] if names else ""


def _write(root: Node, cut: list[Token]) -> None:
    """Refusal for what of a writer's statement is not a list's."""
    words = [word(token) for token in cut]
    if root.kind in ("CreateQuery", "DropQuery", "TruncateQuery"):
        about = next((w for w in words[1:] if w not in ("OR", "REPLACE", "IF", "EXISTS")), "")
        if about == "TEMPORARY":
            raise Refusal(48, "a temporary table lives in a session, and there are none")
        if about not in allowed.OBJECTS and root.kind != "TruncateQuery":
            raise denied(f"{words[0]} {about} is not among the statements that anyone may run")
    for node in root.all():
        if node.kind == "Storage" and "ENGINE" in words:
            engine = next((child.name for child in node.children if child.kind == "Function"), "")
            if engine not in allowed.TABLE_ENGINES:
                raise denied(f"the engine {engine} is not among those of tables here")
        if node.kind == "AlterCommand" and node.name not in allowed.ALTERATIONS:
            raise denied(f"ALTER with {node.name} is not among what anyone may alter")
        if node.kind in ("Identifier", "TableIdentifier") and (node.parent is root or node.within("DropQuery")):
            first = node.name.partition(".")[0].lower()
            if root.kind != "KillQueryQuery" and first in ("system", "information_schema"):
                raise denied(f"the database {first} is the server's own")


def _form(root: Node, cut: list[Token]) -> str | None:
    """The format that the statement names: the last `FORMAT x` outside of everything, if the tree has it too."""
    for i in range(len(cut) - 2, -1, -1):
        if word(cut[i]) == "FORMAT" and cut[i + 1].kind in ("word", "name"):
            name = cut[i + 1].text
            tops = [root, *root.children] if root.kind == "Explain" else [root]
            if any(child.kind == "Identifier" and child.name == name for top in tops for child in top.children):
                return name
            return None
    return None


def _columns(root: Node, hidden: set[str]) -> None:
    """Refusal when a statement over tables of `system` names a column that a reader does not see, or all of them."""
    for node in root.all():
        if (
            node.kind == "Identifier"
            and hidden & set(node.name.split("."))
            and not node.within("ColumnsExceptTransformer")
        ):
            raise denied(f"a reader does not see the column {node.name}")
        if node.kind in _ALL_COLUMNS and not _counted(node) and (direct := _hidden_here(node)):
            excepted = {
                child.name for part in node.all() if part.kind == "ColumnsExceptTransformer" for child in part.children
            }
            if not direct <= excepted:
                raise denied(
                    f"a reader does not see all columns: name them, or write * EXCEPT ({', '.join(sorted(direct))})"
                )


_ALL_COLUMNS = {"Asterisk", "QualifiedAsterisk", "ColumnsRegexpMatcher", "QualifiedColumnsRegexpMatcher"}


def _counted(node: Node) -> bool:
    above = node.parent.parent if node.parent is not None else None
    return above is not None and above.kind == "Function" and above.name.lower() == "count"


def _hidden_here(node: Node) -> set[str]:
    """The hidden columns of the tables that stand in the same SELECT as this node, not in one inside it."""
    above = node.parent
    while above is not None and above.kind != "SelectQuery":
        above = above.parent
    hidden: set[str] = set()
    waiting = [above] if above is not None else []
    while waiting:
        part = waiting.pop()
        if part.kind == "TableIdentifier":
            database, _, table = part.name.partition(".")
            if database.lower() == "system":
                hidden |= allowed.SYSTEM_TABLES.get(table, frozenset())
        waiting.extend(child for child in part.children if child.kind != "SelectWithUnionQuery")
    return hidden
