"""Who may import the native module. import-linter enforces the other directions, but does not see a compiled module."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("contract", "service", "gateway", "prober", "collector", "warehouse", "analyzer", "dashboards", "lab", "cli")
# The node process itself, and the simulated nodes of the in-process fabric.
ALLOWED = ("gateway/node", "lab/fabric/", "cli/")


def imports_native(source: str) -> bool:
    """Whether a module's source imports gateway._dataplane, at its top or anywhere inside."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import) and any(a.name.startswith("gateway._dataplane") for a in node.names):
            return True
        if isinstance(node, ast.ImportFrom):
            whole = {f"{node.module}.{a.name}" for a in node.names} | {str(node.module)}
            if any(name.startswith("gateway._dataplane") for name in whole):
                return True
    return False


def test_only_nodes_import_the_native_module() -> None:
    importers = [
        path.relative_to(ROOT).as_posix()
        for room in ROOMS
        for path in (ROOT / room).rglob("*.py")
        if imports_native(path.read_text())
    ]
    assert importers, "the check itself must find the node"
    assert [path for path in importers if not path.startswith(ALLOWED)] == []


def test_every_way_of_importing_is_seen() -> None:
    assert imports_native("from gateway import _dataplane")
    assert imports_native("def f():\n    from gateway._dataplane import Node")
    assert imports_native("import gateway._dataplane as d")
    assert not imports_native("from gateway import node")
