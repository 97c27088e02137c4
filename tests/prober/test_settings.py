"""Wrong configuration is refused with its place; a fleet file that turns bad is refused too."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from contract.documents import DocumentError
from contract.fleet import Fleet
from prober.__main__ import main
from prober.fleetfile import FleetFile
from prober.settings import ENVIRONMENT_PREFIX, Settings, read_key
from service.settings import load

GOOD = {"name": "p1", "interface": "edge0", "next_hop": "10.1.1.1", "fleet": "f.json", "key_file": "k", "tap_dir": "t"}


def toml(values: dict[str, Any]) -> str:
    return "\n".join(f"{k} = {json.dumps(v)}" for k, v in values.items())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"next_hop": "fd00::1"}, "next_hop"),
        ({"tap_capacity": 1000}, "tap_capacity: expected a power of two"),
        ({"name": "P 1"}, "name"),
        ({"surprise": 1}, "surprise"),
        ({"limits": None}, "limits"),
    ],
)
def test_refused(tmp_path: Path, change: dict[str, Any], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "prober.toml"
    path.write_text(toml({**GOOD, **{k: v for k, v in change.items() if v is not None}}))
    if change == {"limits": None}:
        path.write_text(toml(GOOD) + "\n[limits]\nsource_port_low = 5000\nsource_port_high = 4000\n")
    with pytest.raises(SystemExit) as ended:
        main([str(path)])
    assert ended.value.code == 2
    err = capsys.readouterr().err
    assert str(path) in err
    assert message in err


def test_no_next_hop_at_all_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "prober.toml"
    path.write_text(toml({k: v for k, v in GOOD.items() if k != "next_hop"}))
    with pytest.raises(DocumentError, match="next_hop6 or both"):
        load(path, Settings, ENVIRONMENT_PREFIX)


def test_the_key_is_hexadecimal_and_never_shown(tmp_path: Path) -> None:
    path = tmp_path / "probe.key"
    path.write_text("00112233445566778899aabbccddeeff\n")
    assert read_key(path) == bytes.fromhex("00112233445566778899aabbccddeeff")
    for bad in ("beef", "zz" * 16):
        path.write_text(bad)
        with pytest.raises(DocumentError) as error:
            read_key(path)
        assert "32 hexadecimal digits" in str(error.value)
        assert bad not in str(error.value)


def test_the_fleet_file_is_read_again_when_it_changes(tmp_path: Path, fleet: Fleet) -> None:
    path = tmp_path / "fleet.json"
    path.write_text(fleet.model_dump_json())
    file = FleetFile(path)
    assert file.read() == fleet
    assert not file.changed()
    path.write_text(path.read_text().replace('"r"', '"R!"'))
    os.utime(path, ns=(1, 1))
    assert file.changed()
    with pytest.raises(DocumentError, match="region"):
        file.read()
    assert not file.changed(), "a bad document is complained about once"
    path.unlink()
    assert not file.changed()


def test_more_source_networks_than_the_kernels_filter_can_hold_are_refused(
    tmp_path: Path, fleet: Fleet, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also in a fleet document that comes later: the prober stays with the one it has."""
    document = json.loads(fleet.model_dump_json())
    own = document["probing"]["probers"][0]
    own["sources"] = [f"198.18.{i}.0/24" for i in range(100)]
    document["probing"]["probers"] = [own]
    document["probing"]["reserved"] = ["198.18.0.0/15"]
    (tmp_path / "f.json").write_text(json.dumps(document))
    (tmp_path / "k").write_text("00" * 16)
    places = {"fleet": str(tmp_path / "f.json"), "key_file": str(tmp_path / "k"), "tap_dir": str(tmp_path)}
    path = tmp_path / "prober.toml"
    path.write_text(toml({**GOOD, "name": own["name"], "interface": "lo", **places}))
    with pytest.raises(SystemExit) as ended:
        main([str(path)])
    assert ended.value.code == 2
    assert "probing.probers[0].sources: expected fewer source networks" in capsys.readouterr().err
