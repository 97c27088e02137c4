"""Settings of a process: a TOML file, then environment variables over it (TGW_SECTION__FIELD), checked whole."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from pydantic import BaseModel

from contract.documents import DocumentError, Problem, check, parse

Settings = TypeVar("Settings", bound=BaseModel)


def _environment(prefix: str) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for name, value in os.environ.items():
        if name.startswith(prefix):
            where = out
            *parents, last = name.removeprefix(prefix).lower().split("__")
            for parent in parents:
                where = where.setdefault(parent, {})
            where[last] = value
    return out


def _merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        inner = merged.get(key)
        merged[key] = _merge(inner, value) if isinstance(inner, dict) and isinstance(value, dict) else value
    return merged


def load(path: Path | str, model: type[Settings], environment_prefix: str) -> Settings:
    """Read and check a settings file; DocumentError names the file and every path that is wrong.

    Environment variables that start with `environment_prefix` win over the file: PREFIX_SECTION__FIELD.
    """
    path = Path(path)
    text = read_text(path)
    over = _environment(environment_prefix)
    if not over:
        return parse(text, model, str(path))
    import json
    import tomllib

    try:
        data = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except ValueError:
        return parse(text, model, str(path))  # raises with the place of the fault
    return check(_merge(data, over), model, f"{path} and the environment ({environment_prefix}*)")


def read_text(path: Path) -> str:
    """The file's text; DocumentError when it cannot be read."""
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        found = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise DocumentError(str(path), [Problem("", "expected a readable text file", found)]) from None


def refuse(error: DocumentError) -> NoReturn:
    """Print why a document is refused and end the process with status 2."""
    print(error, file=sys.stderr)
    raise SystemExit(2)
