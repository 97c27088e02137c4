"""Put the tables and plots of a run into README.md: `python -m benchmarks.publish` after `make bench`."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.table import Table

from benchmarks import plots, report
from benchmarks.dataplane import OUT
from benchmarks.report import ROOT

README = ROOT / "README.md"
PICTURES = ROOT / "docs" / "bench"
BEGIN, END = "<!-- results: written by benchmarks/publish.py -->", "<!-- end of results -->"

Document = dict[str, Any]


def markdown(table: Table) -> str:
    """A table as a foldable piece of Markdown."""
    columns = list(table.columns)
    head = [str(column.header) for column in columns]
    rule = ["--:" if column.justify == "right" else "---" for column in columns]
    body = zip(*(column.cells for column in columns), strict=True)
    lines = [head, rule, *([str(cell).replace("|", "\\|") for cell in row] for row in body)]
    text = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"<details><summary>{table.title}</summary>\n\n{text}\n\n</details>"


def _where(whole: Document) -> str:
    machine = whole.get("machine", {})
    known = [machine.get("cpu"), f"{machine['cores']} cores" if "cores" in machine else None]
    known.append(f"Linux {machine['kernel'].split('-')[0]}" if "kernel" in machine else None)
    known.append(f"commit {whole['commit'][:12]}" if "commit" in whole else None)
    return ", ".join(str(word) for word in known if word)


def section(whole: Document, pictures: list[str]) -> Iterator[str]:
    """The pieces of the section: where, every table, every picture (paths as README names them)."""
    yield f"*{_where(whole)}*"
    yield from (markdown(table) for table in report.tables(whole))
    if "exact" in whole:
        account = whole["exact"]
        yield (
            f"Exact account: {account['frames_in']:,} frames in = {account['frames_out']:,} out + {account['drops']:,} "
            f"dropped by reason; difference {account['difference']}."
        )
    yield from (f"![{Path(path).stem.replace('_', ' ')}]({path})" for path in pictures)


def put(text: str, pieces: list[str]) -> str:
    """README with these pieces between its marks. ValueError when a mark is missing."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"README has no place for results: {BEGIN!r} and {END!r}")
    return before + BEGIN + "\n\n" + "\n\n".join(pieces) + "\n\n" + END + after


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.publish", description=__doc__)
    parser.add_argument("results", type=Path, nargs="?", default=OUT, help=f"what to publish (default {OUT})")
    parser.add_argument("--readme", type=Path, default=README)
    parser.add_argument("--pictures", type=Path, default=PICTURES)
    given = parser.parse_args(words)
    whole = json.loads(given.results.read_text())
    text = given.readme.read_text()
    put(text, [])
    shutil.rmtree(given.pictures, ignore_errors=True)
    given.pictures.mkdir(parents=True)
    drawn = plots.draw(whole, given.pictures)
    names = [os.path.relpath(path, given.readme.parent) for path in drawn]
    given.readme.write_text(put(text, list(section(whole, names))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
