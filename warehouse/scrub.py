"""No path of the server leaves it: an error is for whoever asked, and where the server keeps things is not."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

# The engine names its source files and its files of data, mostly quoted or after a colon.
_PATH = re.compile(r"(?<![\w/.:-])/(?:[\w.+-]+/)+[\w.+-]*")


class Scrub:
    """Removes the paths of these folders, and every other path that the machine has, from a text."""

    def __init__(self, folders: Iterable[Path]) -> None:
        names = sorted({str(folder.resolve()) for folder in folders} - {"/"}, key=len, reverse=True)
        self._ours = re.compile("|".join(rf"{re.escape(name)}(?:/[\w.+-]+)*/?" for name in names) or r"(?!)")

    def __call__(self, text: str, asked: str = "") -> str:
        """The text without paths; what stands in the statement that was asked may stay."""
        text = self._ours.sub("(path)", text)

        def replaced(found: re.Match[str]) -> str:
            path = found[0]
            top = "/" + path.split("/")[1]
            return path if path in asked or not Path(top).exists() else "(path)"

        return _PATH.sub(replaced, text)
