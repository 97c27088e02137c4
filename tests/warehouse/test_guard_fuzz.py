"""Random statements of harmless and hostile pieces, written in many ways: what the guard passes is asked of the engine.

The engine's own analysis (EXPLAIN QUERY TREE: names resolved, aliases gone, functions found) is the oracle: in no
statement that passes does it find a function, a table function or a table that is not allowed.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from typing import Any

from warehouse import allowed

CALLS = ["toString(1)", "length('x')", "abs(-1)", "hostName()", "arrayMap(toString, [1])", "arrayMap(x -> abs(x), [1])"]
HOSTILE_CALLS = ["file('/etc/hostname')", "joinGet('a', 'b', 1)", "sleep(0)", "arrayMap(file, ['/etc/hostname'])"]
HOSTILE_CALLS += ["arrayMap(x -> file(x), ['/etc/hostname'])", "getMacro('a')", "dictGet('d', 'a', 1)"]
TABLES = [
    "numbers(2)",
    "zeros(1)",
    "values('a UInt8', 1)",
    "system.one",
    "system.functions",
    "probes",
    "view(SELECT 1)",
]
HOSTILE_TABLES = ["file('/etc/hostname', 'LineAsString')", "url('http://127.0.0.1:1/', 'CSV', 'a String')"]
HOSTILE_TABLES += ["merge('system', 'p')", "remote('127.0.0.1:1', system.one)", "view(SELECT file('/etc/hostname'))"]
HOSTILE_TABLES += ["system.processes", "system.disks", "executable('id', 'CSV', 'a String')"]
FORBIDDEN = {"file", "joinget", "sleep", "getmacro", "url", "remote", "merge", "python", "executable"}
FOUND = re.compile(r"(function_name|table_function_name|table_name): ([\w.]+)")


def disguised(text: str, dice: random.Random) -> str:
    """The same to the engine: other quotes, comments and spaces around a name that is called, other capitals."""
    name, bracket, rest = text.partition("(")
    if not bracket:
        return text
    way = dice.randrange(7)
    if way == 1:
        name = f"`{name}`"
    elif way == 2:
        name = f'"{name}"'
    elif way == 3:
        name = f"{name} /* ) */ "
    elif way == 4:
        name = f"/* ' */{name}\n\t"
    elif way == 5:
        name = name.upper() if name in ("abs", "file", "length") else name
    elif way == 6:
        name = f"{name} -- '\n"
    return name + bracket + rest


def select(dice: random.Random, depth: int = 0) -> str:
    def call() -> str:
        if depth < 2 and dice.random() < 0.2:
            return f"({select(dice, depth + 1)} LIMIT 1)"
        return disguised(dice.choice(CALLS if dice.random() < 0.85 else HOSTILE_CALLS), dice)

    def table() -> str:
        if depth < 2 and dice.random() < 0.3:
            return f"({select(dice, depth + 1)}) AS t{depth}"
        return f"{disguised(dice.choice(TABLES if dice.random() < 0.85 else HOSTILE_TABLES), dice)} AS t{depth}"

    pieces = []
    if dice.random() < 0.2:
        pieces.append(f"WITH {call()} AS w{depth}")
    pieces.append(f"SELECT {call()} AS c{depth}")
    if dice.random() < 0.15:
        pieces.append(f", * APPLY({dice.choice(['toString', 'file', 'x -> file(x)', '`file`'])})")
    pieces.append(f"FROM {table()}")
    if dice.random() < 0.2:
        pieces.append(f"CROSS JOIN {dice.choice(TABLES)} AS j{depth}")
    if dice.random() < 0.2:
        pieces.append(f"WHERE {call()} IS NOT NULL")
    if dice.random() < 0.15:
        pieces.append(f"ORDER BY {call()}")
    if depth == 0 and dice.random() < 0.2:
        pieces.append(f"UNION ALL SELECT {call()}")
    return " ".join(pieces)


def test_nothing_that_passes_reads_outside(warehouse: Any) -> None:
    seen: Counter[str] = Counter()

    for seed in range(150):
        statement = select(random.Random(seed))
        answer = warehouse.post(f"EXPLAIN QUERY TREE {statement}", "reader")
        code = answer.headers.get("X-ClickHouse-Exception-Code", "0")
        seen[code] += 1
        if code == "0":
            for kind, name in FOUND.findall(answer.text):
                if kind == "table_name":
                    database, _, table = name.partition(".")
                    assert database != "system" or table in allowed.SYSTEM_TABLES, statement
                else:
                    assert name.lower() not in FORBIDDEN, statement
                if kind == "table_function_name":
                    assert name.lower() in allowed.TABLE_FUNCTIONS, statement
        run = warehouse.post(statement, "reader")
        # What the guard refuses to explain it refuses to run.
        assert (run.headers.get("X-ClickHouse-Exception-Code") == "497") == (code == "497"), (statement, run.text)

    # It has tried both: what passes is found out, what is refused is refused for that reason.
    assert seen["0"] >= 20, seen
    assert seen["497"] >= 20, seen
