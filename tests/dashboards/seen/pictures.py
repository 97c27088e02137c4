"""Pictures of the dashboards, and what is wrong with what they show.

    python -m tests.dashboards.seen.pictures [--out DIR] [--all] [--run RUN --warehouse URL]

Writes each dashboard, light and dark, and the fleet as a person without green cones sees it, as PNG into DIR (default
docs/pictures), from the recorded run; with --all also on every other set of rows and with what the page says of itself
as JSON beside each picture; with --run from the lab that is up there. Prints what is cut off, in error or unmet.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from tests.dashboards.seen import board, bundle, data
from tests.dashboards.seen.board import Asker, Seen
from tests.dashboards.seen.browser import Browser
from warehouse.settings import WarehouseSettings

ROOT = Path(__file__).resolve().parents[3]
# (what is added to the name, Grafana's theme, whose eyes)
LOOKS = (("light", "light", "none"), ("dark", "dark", "none"))
DEUTERANOPIA = ("deuteranopia", "dark", "deuteranopia")
OURS = "panels: Grafana 11.6's own library; state timelines, page and annotations: ours"


def findings(seen: Seen) -> list[str]:
    """What a person would stumble over, one line each."""
    out = [f"the page complains: {line[:200]}" for line in seen.complaints]
    for title, panel in seen.panels.items():
        if "error" in panel:
            out.append(f"{title}: error: {panel['error'][:200]}")
        out += [f"{title}: cut off in {c['by']} ({c['shown']:.0%} shown): {c['text'][:120]!r}" for c in panel["cut"]]
        for override in panel["overrides"]:
            if not override["met"]:
                out.append(f"{title}: no series for the override of {override['matcher']}")
            if override["unknown"]:
                out.append(f"{title}: Grafana does not know {override['unknown']}")
    return out


def small(picture: Path) -> None:
    """Make a picture smaller: its 192 commonest colours as they are, the nearest of 64 others for the rest."""
    with Image.open(picture) as image:
        whole = image.convert("RGB")
    counted: list[tuple[int, tuple[int, int, int]]] = sorted(whole.getcolors(1 << 24) or [], reverse=True)  # type: ignore[arg-type]
    others = whole.quantize(64, Image.Quantize.MAXCOVERAGE).getpalette() or []
    palette = Image.new("P", (1, 1))
    palette.putpalette([channel for _, colour in counted[:192] for channel in colour] + others[: 64 * 3])
    whole.quantize(palette=palette, dither=Image.Dither.NONE).save(picture, optimize=True)


@contextlib.contextmanager
def rows(name: str) -> Iterator[tuple[Asker, int, str]]:
    """(asker, now [ns], what the rows are) of one of data.SEEDS."""
    with data.store(name) as store:
        asker = Asker(store.as_reader)
        yield asker, store.now_ns, data.SAID[name]
        asker.close()


@contextlib.contextmanager
def lab(run: Path, url: str) -> Iterator[tuple[Asker, int, str]]:
    """The same of a lab that is up."""
    asker = Asker(WarehouseSettings(url=url, user="reader", password_file=run / "keys" / "reader.password"))
    yield asker, time.time_ns(), f"the lab in {run}"
    asker.close()


def take(browser: Browser, source: tuple[Asker, int, str], out: Path, prefix: str, everything: bool) -> int:
    """Draw every dashboard on some rows; how many findings were printed."""
    asker, now_ns, said = source
    count = 0
    for uid, document in board.documents().items():
        looks = [*LOOKS, *([DEUTERANOPIA] if everything or uid == "tgw-fleet" else [])]
        for name, mode, vision in looks:
            picture = out / f"{prefix}{uid}-{name}.png"
            seen = board.look(
                browser,
                asker,
                document,
                data.span(uid, now_ns),
                data.chosen(asker, uid),
                mode=mode,
                margin=f"{said} | {OURS}",
                picture=picture,
                vision=vision,
            )
            small(picture)
            print(f"{picture} ({picture.stat().st_size // 1024} KiB)")
        found = findings(seen)
        count += len(found)
        for line in found:
            print(f"  {prefix}{uid}: {line}")
        if everything:
            told = {"panels": seen.panels, "variables": seen.variables}
            (out / f"{prefix}{uid}.json").write_text(json.dumps(told, indent=1) + "\n")
    return count


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "pictures")
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--run", type=Path)
    parser.add_argument("--warehouse", default="http://127.0.0.1:7402")
    options = parser.parse_args()
    if why := bundle.missing():
        sys.exit(f"no pictures: {why}")
    with Browser(bundle.made(), "index.html") as browser:
        if options.run:
            with lab(options.run, options.warehouse) as source:
                found = take(browser, source, options.out, "", options.all)
        else:
            found = 0
            for name in data.SEEDS if options.all else ["lab"]:
                with rows(name) as source:
                    found += take(browser, source, options.out, f"{name}-" if options.all else "", options.all)
    print(f"{found} findings")


if __name__ == "__main__":
    main()
