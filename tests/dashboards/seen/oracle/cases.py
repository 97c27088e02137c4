"""Random frames, and what Grafana's own LongToWide says of them (main.go): written once, checked by test_wide.py.

python -m tests.dashboards.seen.oracle.cases    writes cases.json; needs Go and the module that go.mod names
"""

from __future__ import annotations

import json
import random
import subprocess
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
FILE = HERE / "cases.json"
COUNT = 80


def question(rng: random.Random) -> dict[str, Any]:
    """A frame: sorted most of the time, with few labels, holes, repeated times, several values."""
    rows = rng.choice([1, 2, 5, 12])
    times: list[int | None] = [*sorted(rng.choices(range(1, 8), k=rows))]
    if rng.random() < 0.08:
        rng.shuffle(times)
    if rng.random() < 0.05:
        times[rng.randrange(rows)] = None
    columns: list[dict[str, Any]] = [{"name": "time", "type": "time", "values": times}]
    columns += [
        {"name": name, "type": "string", "values": rng.choices(["x", "a", "", "z y", None], k=rows)}
        for name in rng.sample(["host", "zone", "b"], rng.choice([0, 1, 1, 2]))
    ]
    if rng.random() < 0.2:
        columns.append({"name": "up", "type": "boolean", "values": rng.choices([True, False], k=rows)})
    columns += [
        {"name": name, "type": "number", "values": rng.choices([0.5, 1.0, 2.0, None], k=rows)}
        for name in rng.sample(["value", "other", "a"], rng.choice([1, 1, 2]))
    ]
    if rng.random() < 0.3:
        rng.shuffle(columns)
    fill = rng.choice(["null", "null", "previous", "value"])
    return {"fill": fill, "value": 7.0, "fields": columns}


def main() -> None:
    """Ask, and write the answers."""
    rng = random.Random(20250211)
    asked = [question(rng) for _ in range(COUNT)]
    lines = "".join(json.dumps(q) + "\n" for q in asked)
    done = subprocess.run(["go", "run", "."], cwd=HERE, input=lines, capture_output=True, text=True, check=True)
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    cases = [{"asked": q, "answered": a} for q, a in zip(asked, answers, strict=True)]
    FILE.write_text("[\n" + ",\n".join(json.dumps(c, separators=(",", ":")) for c in cases) + "\n]\n")


if __name__ == "__main__":
    main()
