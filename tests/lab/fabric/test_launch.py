"""Taking a simulated region down never touches namespaces, which may be those of a real one beside it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lab import namespaces, region
from lab.state import FABRIC_MODE, NAMESPACES, Run, State, machine_boot
from lab.topology import SMALL, Topology


@pytest.fixture
def destroyed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    if os.geteuid() != 0:
        pytest.skip("only root can have namespaces to lose")
    names: list[str] = []

    def destroy(prefix: str) -> list[str]:
        names.append(prefix)
        return []

    monkeypatch.setattr(namespaces, "destroy", destroy)
    return names


def left_by(run: Run, mode: str) -> None:
    run.root.mkdir(parents=True)
    State("up", {"vips": 4}, "tgw-", 1, machine_boot(), 1, {}, mode=mode).write(run)


def test_down(tmp_path: Path, destroyed: list[str]) -> None:
    left_by(Run(tmp_path / "a"), FABRIC_MODE)
    region.down(Run(tmp_path / "a"))
    assert destroyed == []
    left_by(Run(tmp_path / "b"), NAMESPACES)
    region.down(Run(tmp_path / "b"))
    assert destroyed == ["tgw-"]


def test_up_over_leftovers_and_after_a_failure(
    tmp_path: Path, destroyed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> dict[str, str]:
        raise RuntimeError("no luck")

    monkeypatch.setattr(region, "_make", fail)
    for name, mode, expected in (("a", FABRIC_MODE, []), ("b", NAMESPACES, ["tgw-"])):
        left_by(Run(tmp_path / name), mode)
        with pytest.raises(RuntimeError, match="no luck"):
            region.up(Run(tmp_path / name), Topology(SMALL), fresh=True, mode=FABRIC_MODE)
        assert destroyed == expected
