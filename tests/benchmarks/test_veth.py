"""The section of real devices: its figures, and a short measurement on veths that leaves nothing behind."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from benchmarks import packets, veth, wires
from benchmarks.packets import Contestant, Cores, Turn
from tests.benchmarks import sample


def test_the_section_names_the_figures_to_compare() -> None:
    section = sample.document()["veth"]
    assert section["tgw_af_xdp_pps"] == 2_450_000
    assert section["tgw_af_xdp_to_nftables"] == 2.04
    assert (section["haproxy_cps"], section["tgw_cps"]) == (16_400, 19_000)
    assert "nftables: the balancer's core (98% busy)" in section["bottleneck"][2]


def test_who_could_not_take_part_is_null_and_said() -> None:
    section = veth.document([sample.packets("tgw_af_packet", 700_000)], [], ["nftables: not installed"], Cores(0, 1))
    assert section["tgw_af_packet_pps"] == 700_000
    assert section["nftables_pps"] is section["tgw_af_packet_to_nftables"] is section["tgw_cps"] is None
    assert section["missing"] == ["nftables: not installed"]


def test_the_figure_is_the_median_at_the_load_where_most_comes_out(tmp_path: Path) -> None:
    made = wires.Network("none", tmp_path)
    one = Contestant("x", made, Path("tgw-bench"), Cores(0, 1), "", "")
    one.sweep = [Turn(0, 9e6, 5e5, 1.0, 1.0), Turn(700, 1.1e6, 9e5, 1.0, 0.9)]
    one.best = [Turn(0, 9e6, 2e6, 1.0, 1.0), *(Turn(700, 1.1e6, pps, 1.0, 0.9) for pps in (8e5, 1e6, 1.1e6))]
    one.best += [Turn(0, 9e6, 4e5, 1.0, 1.0)] * 2
    document = one.document()
    assert (document["pps"], document["ns_per_packet"], document["spread"]) == (1_000_000, 1000.0, 0.3)
    assert document["sweep"] == [[9_000_000, 500_000], [1_100_000, 900_000]]


def test_a_bottleneck_is_the_generator_only_when_it_could_not_offer_more() -> None:
    starved = sample.packets("receive_only", 3_900_000, most=4_000_000)
    assert "the generator's core" in veth.bottleneck(starved)


@pytest.mark.root
def test_a_short_measurement_forwards_and_leaves_nothing_behind(binary: Path, tmp_path: Path) -> None:
    why = wires.missing()
    if why is not None:
        pytest.skip(why)
    section = veth.measure(binary, ["af_packet"], True, lambda _: None)
    assert section["tgw_af_packet_pps"] > 1000, section["missing"]
    assert section["tgw_af_packet_cps"] == section["tgw_cps"] > 10
    (node,) = (one for one in section["packets"] if one["contestant"] == "tgw_af_packet")
    for worker in node["node"]:
        assert worker["frames_in"] == worker["frames_out"] + sum(worker["drops"].values())
    if not any(reason.startswith("nftables") for reason in section["missing"]):
        assert section["nftables_pps"] > 1000
    assert all(one["failed"] == 0 for one in section["connections"])
    assert not list(wires.NETNS.glob(f"{wires.PREFIX}{os.getpid()}-*"))


@pytest.mark.root
def test_a_node_that_does_not_start_is_told_and_cleaned_up(binary: Path, tmp_path: Path) -> None:
    why = wires.missing()
    if why is not None:
        pytest.skip(why)
    forwarded, absent = packets.measure(binary, veth.cores(), ["no_such_device"], False, True, tmp_path, lambda _: None)
    assert {one["contestant"] for one in forwarded} == {"receive_only", "kernel_forward"}
    assert len(absent) == 1
    assert "no_such_device" in absent[0]
    assert not list(wires.NETNS.glob(f"{wires.PREFIX}{os.getpid()}-*"))


@pytest.mark.root
def test_what_a_killed_measurement_left_is_removed() -> None:
    why = wires.missing()
    if why is not None:
        pytest.skip(why)
    done = subprocess.Popen(["true"])
    done.wait()
    name = f"{wires.PREFIX}{done.pid}-x"
    wires.command("ip", "netns", "add", name)
    assert name in wires.remove_left_over()
    assert not (wires.NETNS / name).exists()
