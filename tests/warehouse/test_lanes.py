"""Places and turns, without an engine."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from warehouse.lanes import Lane, LineFullError, Place, lanes_of, reader_places


def run(story: Coroutine[Any, Any, None]) -> None:
    asyncio.run(story)


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def test_the_readers_places_are_half_of_their_budget() -> None:
    for budget in (1 << 28, 1 << 30, 3 << 30):
        places = reader_places(budget)
        assert sum(place.slots * place.memory for place in places) == budget // 2
        assert [place.memory for place in places] == sorted(place.memory for place in places)


def test_clients_take_turns_however_many_one_of_them_has_in_line() -> None:
    async def story() -> None:
        lane = Lane(Place(1))
        order: list[str] = []

        async def ask(client: str) -> None:
            async with lane.held(client):
                order.append(client)
                await settle()

        async with anyio.create_task_group() as group, lane.held("greedy"):
            for client in ["greedy"] * 6 + ["modest", "third"]:
                group.start_soon(ask, client)
            await settle()
        assert order == ["greedy", "modest", "third"] + ["greedy"] * 5
        assert lane.running == 0

    run(story())


def test_one_client_does_not_take_all_places() -> None:
    async def story() -> None:
        lane = Lane(Place(4), each=3)
        async with lane.held("a"), lane.held("a"), lane.held("a"):
            waiting = asyncio.create_task(lane._take("a"))
            await settle()
            assert not waiting.done()
            async with lane.held("b"):
                assert lane.running == 4
            assert not waiting.done()
            waiting.cancel()
            await settle()
            assert len(lane) == 0

    run(story())


def test_a_full_line_refuses_at_once_and_a_client_has_half_of_it() -> None:
    async def story() -> None:
        lane = Lane(Place(1), waiting=4)
        async with lane.held("a"):
            tasks = [asyncio.create_task(lane._take(client)) for client in "aabb"]
            await settle()
            for client in "ac":
                with pytest.raises(LineFullError):
                    await lane._take(client)
            tasks[0].cancel()
            await settle()
            with pytest.raises(LineFullError):
                await lane._take("b")
            for task in tasks:
                task.cancel()

    run(story())


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["ask", "leave", "end"]), st.integers(0, 3)), max_size=60), st.integers(1, 3))
def test_no_place_is_lost_or_given_twice(steps: list[tuple[str, int]], each: int) -> None:
    async def story() -> None:
        lane = Lane(Place(3), each=each, waiting=1000)
        tasks: list[tuple[int, asyncio.Task[None]]] = []
        for step, client in steps:
            mine = [pair for pair in tasks if pair[0] == client]
            if step == "ask":
                tasks.append((client, asyncio.create_task(lane._take(str(client)))))
            elif mine:
                pair = mine[0] if step == "end" else mine[-1]
                if pair[1].done():
                    lane._give_back(str(client))
                else:
                    pair[1].cancel()
                tasks.remove(pair)
            if client % 2:
                await settle()
        await settle()
        held = [client for client, task in tasks if task.done()]
        waiting = [client for client, task in tasks if not task.done()]
        assert lane.running == len(held) <= 3
        assert len(lane) == len(waiting)
        assert all(held.count(client) <= each for client in range(4))
        # Nobody waits for what is free.
        if lane.running < 3:
            assert all(held.count(client) == each for client in waiting)
        for _, task in tasks:
            task.cancel()
        await settle()

    run(story())


def test_every_kind_has_lanes_of_its_own() -> None:
    assert set(lanes_of(1 << 30)) == {"reader", "writer", "inserter", "house"}
