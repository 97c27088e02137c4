"""The demo's face: a live timeline on a terminal, plain lines elsewhere, a picture of the timeline at the end."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from types import TracebackType
from typing import Any

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from lab.story import Act, Event

COLOURS = {"fault": "bold red", "requests fail": "red", "first silent probe": "red", "restored": "bold green"}
COLOURS |= {"incident opened": "yellow", "webhook received": "cyan", "routes moved": "magenta"}
COLOURS |= {"migration asked for": "magenta", "incident mitigated": "green", "incident closed": "green"}
COLOURS |= {"first clean probe": "green", "requests recovered": "green", "migration done": "green"}


def svg_format() -> str:
    """Rich's picture of a console, without the fonts that it would fetch from elsewhere."""
    return re.sub(r"\s*@font-face \{\{.*?\}\}", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL).replace(
        "Fira Code", "ui-monospace"
    )


class Screen:
    """Shows progress and events. With `as_json` it says nothing until the report."""

    def __init__(self, as_json: bool = False) -> None:
        self._as_json = as_json
        self._console = Console(highlight=False)
        if not self._console.is_terminal:
            self._console = Console(highlight=False, width=120)
        self._terminal = self._console.is_terminal and not as_json
        self._steps: dict[str, tuple[int, int]] = {}
        self._lines: list[Text] = []
        self._status = Text("")
        self._live: Live | None = None

    def __enter__(self) -> Screen:
        if self._terminal:
            self._live = Live(self._render(), console=self._console, refresh_per_second=8)
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()
            self._live = None

    def step(self, name: str, done: int, total: int) -> None:
        """Progress of a step."""
        new = self._steps.get(name) != (done, total)
        self._steps[name] = (done, total)
        if self._live:
            self._live.update(self._render())
        elif new and done >= total:
            self._say(Text(f"{name}: {done}/{total}"))

    def note(self, text: str) -> None:
        """One line of prose."""
        self._line(Text(text, style="dim"))

    def event(self, event: Event, after_s: float | None) -> None:
        """One event of the story."""
        self._line(event_line(event, after_s))

    def counters(self, act: Act) -> None:
        """The moving numbers under the timeline."""
        failed = sum(1 for r in act.requests if not r.ok)
        silent = sum(1 for p in act.probes if not p.answered)
        self._status = Text(
            f"{act.name}: requests {len(act.requests)}, failed {failed}; probes {len(act.probes)}, unanswered {silent}",
            style="dim",
        )
        if self._live:
            self._live.update(self._render())

    def summary(self, report: dict[str, Any], events: list[Event], svg: Path) -> None:
        """The end: what held, and the picture."""
        recorder = Console(record=True, width=120, file=open("/dev/null", "w"), highlight=False)  # noqa: SIM115
        zero = {e.act: e.ts_ns for e in events if e.what == "fault"}
        body: list[Any] = []
        for event in events:
            if event.what == "fault":
                body.append(Text(event.act, style="bold underline"))
            body.append(event_line(event, (event.ts_ns - zero.get(event.act, event.ts_ns)) / 1e9))
        group = Group(*body, Text(""), facts(report))
        recorder.print(group)
        recorder.save_svg(str(svg), title="tgw: a region finds and heals its faults", code_format=svg_format())
        if self._as_json:
            sys.stdout.write(json.dumps(report, indent=1) + "\n")
            return
        self._console.print(Text("\nThe story, by the time at which things happened:", style="bold"))
        self._console.print(group)
        for line in report["did_not_hold"]:
            self._console.print(Text(f"did not hold: {line}", style="bold red"))
        if report["held"]:
            self._console.print(Text("Everything held.", style="bold green"))
        self._console.print(Text(f"report: {svg.parent / 'report.json'}, picture: {svg}", style="dim"))

    def _line(self, line: Text) -> None:
        self._lines.append(line)
        if self._live:
            self._live.update(self._render())
        else:
            self._say(line)

    def _say(self, line: Text) -> None:
        if not self._as_json:
            self._console.print(line)

    def _render(self) -> Group:
        steps = Table.grid(padding=(0, 2))
        for name, (done, total) in self._steps.items():
            mark = Text("done", style="green") if done >= total else Text(f"{done}/{total}", style="yellow")
            steps.add_row(name, mark)
        return Group(steps, Text(""), *self._lines[-30:], Text(""), self._status)


def event_line(event: Event, after_s: float | None) -> Text:
    """`+12.3 s  what  detail`, in the event's colour."""
    time = "" if after_s is None else f"+{after_s:6.2f} s"
    return Text.assemble(
        (f"{time:>10}  ", "dim"), (f"{event.what:<20}", COLOURS.get(event.what, "")), f"  {event.detail}"
    )


def facts(report: dict[str, Any]) -> Table:
    """The report's numbers in a small table; a dash where something was not seen."""
    out = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("", "detected", "named", "restored", "requests", "failed", "after restore"):
        out.add_column(column, no_wrap=True)
    for act in report["acts"]:

        def seconds(value: float | None) -> str:
            return "-" if value is None else f"{value:.1f} s"

        out.add_row(
            f"{act['act']}: {act['fault']}",
            seconds(act["detected_after_s"]),
            f"{act['named_node'] or '-'} ({'right' if act['named_correctly'] else 'WRONG'})",
            seconds(act["restored_after_s"]),
            str(act["requests_total"]),
            str(act["requests_failed"]),
            "-" if act["requests_failed_after_restore"] is None else str(act["requests_failed_after_restore"]),
        )
    return out
