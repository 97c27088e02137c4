"""Mutants are real changes of behaviour, and a seed draws the same ones."""

from __future__ import annotations

import ast
from collections import Counter

from tools.mutants.mutate import candidates, sample

SOURCE = '''"""About."""
LIMIT = 5

class Kept:
    bound: int = Field(ge=0)

def within(a: int | None, b: int = 2) -> bool:
    """Whether."""
    log.info("asked", a=a, b=3)
    if a is None:
        return False
    return a + 1 < b and not a == 7
'''


def test_each_is_one_change_of_what_a_function_does() -> None:
    found = [m for c in candidates("m.py", SOURCE) if (m := c.make()) is not None]
    changed = {d for m in found for d in m.diff.splitlines() if d.startswith("+ ")}
    for line in (
        "+    if a is not None:",
        "+        return True",
        "+    return a - 1 < b and not a == 7",
        "+    return a + 2 < b and not a == 7",
        "+    return a + 1 <= b and not a == 7",
        "+    return a + 1 < b or not a == 7",
        "+    return a + 1 < b and a == 7",
        "+    return a + 1 < b and not a != 7",
    ):
        assert line in changed, found
    assert not any(
        "log.info" in d or "LIMIT" in d or "bound" in d or "About" in d or ("None" in d and "def" in d) for d in changed
    )
    assert all(ast.dump(ast.parse(m.code)) != ast.dump(ast.parse(SOURCE)) for m in found)
    assert {m.line for m in found} <= {7, 10, 11, 12}
    assert {c.line for c in candidates("m.py", SOURCE)} == {m.line for m in found}


def test_a_sample_is_the_seeds_alone_and_spread_over_the_modules() -> None:
    lines = {name: "".join(f"    a{n} = {n}\n" for n in range(size)) for name, size in (("a", 25), ("b", 1), ("c", 20))}
    modules = {name: candidates(name, f"def f():\n{text}") for name, text in lines.items()}
    sizes = {name: len(some) for name, some in modules.items()}
    assert sizes == {"a": 50, "b": 2, "c": 40}
    one = sample(modules, 20, 7)
    assert one == sample(dict(reversed(modules.items())), 20, 7)
    assert one != sample(modules, 20, 8)
    assert len({(m.path, m.code) for m in one}) == 20
    counts = Counter(m.path for m in one)
    assert counts["b"] == 2
    assert abs(counts["a"] - counts["c"]) <= 1
    assert len(sample(modules, 1000, 1)) == 92
