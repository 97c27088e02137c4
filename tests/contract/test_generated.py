"""The generated files are what the TOML says, and the generator refuses a contradictory TOML."""

from __future__ import annotations

import copy
import importlib.util
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from contract import records, vocabulary

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate_contract", ROOT / "tools/generate_contract.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def words() -> dict[str, Any]:
    return copy.deepcopy(tomllib.loads((ROOT / "contract/vocabulary.toml").read_text()))


@pytest.fixture
def layouts() -> dict[str, Any]:
    return copy.deepcopy(tomllib.loads((ROOT / "contract/records.toml").read_text()))


def test_no_file_is_stale(generator: ModuleType) -> None:
    for path, text in generator.files().items():
        assert path.read_text() == text, f"{path} is stale"


def test_every_word_reaches_python(words: dict[str, Any]) -> None:
    assert {r.name for r in vocabulary.DropReason} == {r["name"] for r in words["drop_reason"]}
    assert set(vocabulary.DROPS) == set(vocabulary.DropReason)
    assert set(vocabulary.HOPS) == set(vocabulary.Hop)
    for info in vocabulary.DROPS.values():
        assert info.meaning
        assert info.hops
        assert info.blame in {"node", "vip", "real_server", "client", "operator"}


def test_a_number_used_twice_is_refused(generator: ModuleType, words: dict[str, Any]) -> None:
    words["drop_reason"][1]["number"] = words["drop_reason"][0]["number"]
    with pytest.raises(ValueError, match="unique"):
        generator.check_vocabulary(words)


def test_zero_is_refused(generator: ModuleType, words: dict[str, Any]) -> None:
    words["hop"][0]["number"] = 0
    with pytest.raises(ValueError, match="not 0"):
        generator.check_vocabulary(words)


def test_an_unknown_hop_is_refused(generator: ModuleType, words: dict[str, Any]) -> None:
    words["drop_reason"][0]["hops"] = ["nowhere"]
    with pytest.raises(ValueError, match="nowhere"):
        generator.check_vocabulary(words)


def test_overlapping_fields_are_refused(generator: ModuleType, layouts: dict[str, Any]) -> None:
    layouts["record"]["point"]["fields"][1]["offset"] = 4
    with pytest.raises(ValueError, match="overlaps"):
        generator.check_records(layouts)


def test_a_field_past_the_end_is_refused(generator: ModuleType, layouts: dict[str, Any]) -> None:
    layouts["record"]["probe"]["size"] = 64
    with pytest.raises(ValueError, match="past the size"):
        generator.check_records(layouts)


def test_a_changed_layout_has_another_number(generator: ModuleType, layouts: dict[str, Any]) -> None:
    before = generator.layout_number(layouts)
    layouts["record"]["point"]["fields"][-1]["offset"] += 4
    assert before == records.LAYOUT
    assert generator.layout_number(layouts) != before


def test_struct_and_field_table_agree() -> None:
    for fields, layout in ((records.POINT_FIELDS, records.POINT_STRUCT), (records.PROBE_FIELDS, records.PROBE_STRUCT)):
        data = bytes(i % 251 for i in range(layout.size))
        for (name, offset, size), value in zip(fields, layout.unpack(data), strict=True):
            raw = data[offset : offset + size]
            assert value == (raw if size == 16 else int.from_bytes(raw, "little")), name


def test_drop_counters_do_not_run_into_named_ones() -> None:
    assert max(records.COUNTERS.values()) < records.DROP_BASE
    assert records.DROP_BASE + max(vocabulary.DropReason) < records.TAP_COUNTERS_COUNT
    assert records.TAP_COUNTERS_OFFSET + 8 * records.TAP_COUNTERS_COUNT <= records.TAP_HEADER_SIZE
