"""What a statement is, by the engine's own parser: the tree that EXPLAIN AST prints, read back.

One line is one node: as many spaces as it is deep, what it is, `(alias x)`, `(children n)`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

EXPLAIN = "EXPLAIN AST "
_LINE = re.compile(r"( *)(.*?)(?: \(alias (.*)\))?(?: \(children \d+\))?")
_POSITION = re.compile(r"(failed at position )(\d+)")
_COLUMN = re.compile(r"(\(line 1, col )(\d+)")


@dataclass(slots=True)
class Node:
    """A node. `kind`: its first word; `name`: the rest of its label, a function's or a table's name for one."""

    kind: str
    name: str
    parent: Node | None
    children: list[Node] = field(default_factory=list)

    def all(self) -> Iterator[Node]:
        """This node and all below it."""
        waiting = [self]
        while waiting:
            node = waiting.pop()
            yield node
            waiting.extend(reversed(node.children))

    def within(self, *kinds: str) -> bool:
        """Whether it stands directly or through lists below a node of one of these kinds."""
        above = self.parent
        while above is not None and above.kind == "ExpressionList":
            above = above.parent
        return above is not None and above.kind in kinds


def tree(printed: str) -> Node:
    """The tree of what EXPLAIN AST printed, as TabSeparated text; ValueError when it is none."""
    path: list[Node] = []
    for line in printed.splitlines():
        found = _LINE.fullmatch(line)
        if found is None or not found[2]:
            continue
        depth = len(found[1])
        if depth > len(path) or (depth == 0 and path):
            raise ValueError(f"expected a node at most {len(path)} deep, got {line!r}")
        kind, _, name = found[2].partition(" ")
        node = Node(kind, name.strip(), path[depth - 1] if depth else None)
        del path[depth:]
        if node.parent is not None:
            node.parent.children.append(node)
        path.append(node)
    if not path:
        raise ValueError("an empty tree")
    return path[0]


def of_the_statement(message: str) -> str:
    """An error of EXPLAIN AST with the positions of the statement itself."""
    shift = len(EXPLAIN)
    message = _POSITION.sub(lambda found: found[1] + str(max(1, int(found[2]) - shift)), message)
    return _COLUMN.sub(lambda found: found[1] + str(max(1, int(found[2]) - shift)), message)
