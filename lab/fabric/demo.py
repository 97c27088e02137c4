"""The demo's story over the in-process fabric, for whoever wants it where namespaces would be possible too."""

from __future__ import annotations

from pathlib import Path

from lab.state import FABRIC_MODE, Run


def run(keep: bool, out_dir: Path, as_json: bool = False) -> int:
    """Tell the story; 0 when everything held, 1 when not. LabError when the region does not come up."""
    from lab import demo

    return 0 if demo.tell(Run.default(), out_dir, keep, as_json, FABRIC_MODE) else 1
