"""Documents that people write: checked whole, refused whole, with the path of every fault in them."""

from __future__ import annotations

import json
import tomllib
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

Model = TypeVar("Model", bound=BaseModel)


class Strict(BaseModel):
    """Base of every document part: an unknown key is a fault, numbers are finite, values do not change afterwards."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


@dataclass(frozen=True, slots=True)
class Problem:
    """One fault of a document: where it is, what was expected there, what stands there (cut short)."""

    path: str
    expected: str
    found: str

    def __str__(self) -> str:
        return f"{self.path or '(whole document)'}: {self.expected} (found {self.found})"


class DocumentError(ValueError):
    """A document is refused; nothing of it is applied. Lists every problem with its path."""

    def __init__(self, source: str, problems: list[Problem]) -> None:
        self.source = source
        self.problems = problems
        lines = "\n".join(f"  {p}" for p in problems)
        super().__init__(f"{source}: {len(problems)} problem{'s' if len(problems) != 1 else ''}\n{lines}")


def _path(location: tuple[int | str, ...]) -> str:
    out = ""
    for part in location:
        out += f"[{part}]" if isinstance(part, int) else (f".{part}" if out else part)
    return out


# Also what stands below `receivers`: there a URL may be a secret.
_SECRET_WORDS = ("key", "token", "password", "secret", "dsn", "receivers")


def _shown(value: Any, path: str) -> str:
    if any(word in path.lower() for word in _SECRET_WORDS):
        return "(not shown)"
    if isinstance(value, dict | list):  # may hold a secret further down
        return f"a {'table' if isinstance(value, dict) else 'list'} of {len(value)}"
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def check(data: Any, model: type[Model], source: str) -> Model:
    """The model that `data` holds; DocumentError naming `source` and every path that is wrong."""
    try:
        return model.model_validate(data)
    except ValidationError as error:
        problems = []
        for item in error.errors(include_url=False):
            path = _path(item["loc"])
            # A fault of the whole (a cross-check) carries its own paths in the message, one a line.
            message = item["msg"].removeprefix("Value error, ")
            if item["type"] == "value_error" and not path and ": " in message:
                for line in message.splitlines():
                    where, _, what = line.partition(": ")
                    problems.append(Problem(where, what, "see there"))
            else:
                problems.append(Problem(path, message, _shown(item.get("input"), path)))
        raise DocumentError(source, problems) from None


def stored(text: str, model: type[Model], source: str) -> tuple[Model, list[str]]:
    """A JSON document of our own that an earlier or later program may have written, and the paths that `model` does
    not know: they are left out. DocumentError when what is left is wrong.
    """
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DocumentError(source, [Problem("", "expected JSON", str(error))]) from None
    unknown: list[str] = []
    while True:
        try:
            return model.model_validate(data), unknown
        except ValidationError as error:
            strange = [e["loc"] for e in error.errors(include_url=False) if e["type"] == "extra_forbidden"]
            if not strange or not all(_without(data, location) for location in strange):
                return check(data, model, source), unknown  # raises, with every path
            unknown += [_path(location) for location in strange]


def _without(data: Any, location: tuple[int | str, ...]) -> bool:
    """Take a field out of a document; whether it was there."""
    *parents, last = location
    try:
        for part in parents:
            data = data[part]
        del data[last]
    except (KeyError, IndexError, TypeError):
        return False
    return True


def parse(text: str | bytes, model: type[Model], source: str) -> Model:
    """Parse TOML (or JSON, when `source` ends in .json) and check it. DocumentError with line and column otherwise."""
    if isinstance(text, bytes):
        try:
            text = text.decode()
        except UnicodeDecodeError as error:
            raise DocumentError(source, [Problem("", "expected UTF-8 text", f"byte {error.start}")]) from None
    try:
        data = json.loads(text) if source.endswith(".json") else tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # also a number of too many digits, and lists in lists in lists
        kind = "JSON" if source.endswith(".json") else "TOML"
        raise DocumentError(source, [Problem("", f"expected {kind}", str(error))]) from None
    return check(data, model, source)
