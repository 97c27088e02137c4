"""Asks control how its nodes and VIPs are, and carries requests to it. Never raises for what the network does."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import httpx

from analyzer.region import ControlView, NodeView, Placed
from analyzer.remedy import Answer, PostMigration, Request

MOVING = ("planned", "configuring", "announcing")


class ControlClient:
    """An HTTP client of control. Close it with `aclose`."""

    def __init__(
        self, url: str, token_file: Path | None, timeout_s: float, transport: httpx.AsyncBaseTransport | None = None
    ) -> None:
        """`transport`: another way than the network, for tests."""
        self._token_file = token_file
        self._http = httpx.AsyncClient(base_url=url, timeout=timeout_s, trust_env=False, transport=transport)
        self.error = ""

    async def aclose(self) -> None:
        """Close connections."""
        await self._http.aclose()

    def _headers(self) -> dict[str, str]:
        if self._token_file is None:
            return {}
        return {"authorization": f"Bearer {self._token_file.read_text().strip()}"}

    async def _get(self, path: str) -> Any:
        answer = await self._http.get(path, headers=self._headers())
        answer.raise_for_status()
        return answer.json()

    async def view(self) -> ControlView | None:
        """Control's view now; None when it does not answer (then `error` says why)."""
        try:
            nodes = await self._get("/v1/nodes")
            placement = await self._get("/v1/placement")
            migrations = await self._get("/v1/migrations")
            rails = await self._get("/v1/rails")
            found = parse(time.time_ns(), nodes, placement, migrations, rails)
        except (httpx.HTTPError, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            self.error = f"{type(error).__name__}: {error}"
            return None
        self.error = ""
        return found

    async def fleet(self) -> str | None:
        """The fleet document that control works by, as JSON text; None when it has none or does not answer."""
        try:
            answer = await self._http.get("/v1/fleet", headers=self._headers())
        except (httpx.HTTPError, OSError):
            return None
        return answer.text if answer.status_code == 200 else None

    async def send(self, request: Request) -> Answer:
        """Carry a request to control; the answer, status 0 when it could not be reached."""
        if isinstance(request, PostMigration):
            path = "/v1/migrations"
        else:
            path = f"/v1/migrations/{request.migration_id}/verdict"
        try:
            answer = await self._http.post(path, json=request.body(), headers=self._headers())
        except (httpx.HTTPError, OSError) as error:
            return Answer(request, 0, {}, f"{type(error).__name__}: {error}")
        try:
            document = answer.json()
        except ValueError:
            document = {}
        problem = "" if answer.is_success else answer.text[:300]
        return Answer(request, answer.status_code, document if isinstance(document, dict) else {}, problem)


def parse(at_ns: int, nodes: Any, placement: Any, migrations: Any, rails: Any) -> ControlView:
    """Control's answers as a view; KeyError, TypeError or ValueError when they are not what they should be."""
    known = {str(m["id"]): m for m in migrations}
    places = {}
    for item in placement:
        moving = item.get("migration")
        migration = known.get(str(moving)) if moving else None
        under_way = migration is not None and migration.get("state") in MOVING
        places[int(item["vip_id"])] = Placed(
            str(item["current"]), int(item.get("since_ns") or 0), str(moving) if under_way else None
        )
    return ControlView(
        at_ns,
        {str(n["name"]): NodeView(str(n["state"]), n.get("forwarding_alive")) for n in nodes},
        places,
        known,
        dict(rails) if isinstance(rails, dict) else {},
    )
