"""Asks control how its nodes and VIPs are, and carries requests to it. Never raises for what the network does."""

from __future__ import annotations

import time
from collections.abc import Collection
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx

from analyzer.region import ControlView, NodeView, Placed
from analyzer.remedy import Answer, PostMigration, Request

# Of migrations that changed no later than so long ago, control is asked again only by name.
MEMORY_US = 24 * 3600 * 1_000_000
PAGE, MOST_PAGES = 1000, 20
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
        # The migrations that control has told of, and the change up to which it has; see gateway/api.
        self._known: dict[str, dict[str, Any]] = {}
        self._since: int | None = None
        self._store = ""

    async def aclose(self) -> None:
        """Close connections."""
        await self._http.aclose()

    def _headers(self) -> dict[str, str]:
        """OSError or ValueError when the token's file is not what it should be."""
        if self._token_file is None:
            return {}
        token = self._token_file.read_text().strip()
        if not token.isascii() or not token.isprintable():
            raise ValueError(f"{self._token_file}: expected a token of printable ASCII characters")
        return {"authorization": f"Bearer {token}"}

    async def _get(self, path: str, **parameters: Any) -> Any:
        answer = await self._http.get(path, params=parameters or None, headers=self._headers())
        if not answer.is_success:
            raise ValueError(f"{path}: HTTP {answer.status_code}: {answer.text[:400]}")
        return answer.json()

    async def view(self, watched: Collection[str] = ()) -> ControlView | None:
        """Control's view now; None when it does not answer (then `error` says why).

        Its migrations are those that are under way or have changed within a day, and `watched` ones whatever their age.
        """
        try:
            nodes = await self._get("/v1/nodes")
            placement = await self._get("/v1/placement")
            migrations = await self._migrations(watched)
            rails = await self._get("/v1/rails")
            found = parse(time.time_ns(), nodes, placement, migrations, rails)
        except (httpx.HTTPError, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            self.error = f"{type(error).__name__}: {error}"
            return None
        self.error = ""
        return found

    async def _migrations(self, watched: Collection[str]) -> list[dict[str, Any]]:
        """What is known of migrations, with what has changed since control was asked last."""
        for _ in range(MOST_PAGES):
            if self._since is None:
                page = await self._get("/v1/migrations", active=True)
                self._known = {str(m["id"]): m for m in page["items"]}
                self._store, self._since = str(page["store"]), time.time_ns() // 1000 - MEMORY_US
            page = await self._get("/v1/migrations", since=self._since, limit=PAGE)
            if page["store"] != self._store:  # another store numbers anew
                self._since = None
                continue
            self._known |= {str(m["id"]): m for m in page["items"]}
            self._since = int(page["next"])
            if len(page["items"]) < PAGE:
                break
        for identity in set(watched) - self._known.keys():
            answer = await self._http.get(f"/v1/migrations/{quote(identity, safe='')}", headers=self._headers())
            if answer.status_code != 404:
                answer.raise_for_status()
                self._known[identity] = answer.json()
        old = time.time_ns() - 1000 * MEMORY_US
        self._known = {
            k: m for k, m in self._known.items()
            if k in watched or not m.get("finished_ns") or int(m["finished_ns"]) > old
        }  # fmt: skip
        return list(self._known.values())

    async def fleet(self) -> str | None:
        """The fleet document that control works by, as JSON text; None when it has none or does not answer."""
        try:
            answer = await self._http.get("/v1/fleet", headers=self._headers())
        except (httpx.HTTPError, OSError, ValueError):
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
        except (httpx.HTTPError, OSError, ValueError) as error:
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
