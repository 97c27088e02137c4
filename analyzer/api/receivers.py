"""The API's part about receivers: who they are, what they said, and a test notice to one of them."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Protocol

from fastapi import FastAPI, HTTPException, Path, Query
from pydantic import BaseModel

from analyzer.alerting.answer import Answer
from analyzer.api import documents
from analyzer.api.documents import Problem
from analyzer.engine import Engine

Name = Annotated[str, Path(max_length=63, description="The name of a receiver in the settings.")]


class Tester(Protocol):
    """What sends a test notice: KeyError for a receiver that is not known."""

    async def send_test(self, name: str) -> list[tuple[str, Answer]]: ...


class Receiver(BaseModel):
    """A receiver. `target`: where it sends, without secrets; `gone`: why it is told nothing any more.

    `owed`: alerts that it has not taken as they are now; `last`: the notification that it answered last.
    """

    name: str
    kind: str
    target: str
    gone: str | None
    groups: int
    owed: int
    last: dict[str, Any] | None


class Tried(BaseModel):
    """What a receiver said to a test. `said`: the first 500 bytes of its answer."""

    notice: str
    outcome: Literal["taken", "later", "refused", "gone"]
    status: int
    said: str
    error: str


class Test(BaseModel):
    """A test notice: it fires, and is ended where it would stay open."""

    receiver: str
    taken: bool
    tries: list[Tried]


def add(app: FastAPI, engine: Engine, shell: Tester) -> None:
    """Add the routes."""
    problem: dict[int | str, dict[str, Any]] = {404: {"description": "not known", "model": Problem}}

    @app.get("/v1/receivers")
    async def receivers() -> list[Receiver]:
        """Every receiver of the settings, and what it said last."""
        out = []
        for receiver in engine.receivers:
            groups = engine.groups.by_receiver(receiver.name)
            out.append(
                Receiver(
                    name=receiver.name,
                    kind=receiver.kind,
                    target=receiver.target,
                    gone=engine.gone.get(receiver.name),
                    groups=len(groups),
                    owed=sum(len(g.news()) for g in groups),
                    last=engine.store.last_notification(receiver.name),
                )
            )
        return out

    @app.post("/v1/receivers/{name}/test", responses=problem)
    async def send_test(name: Name) -> Test:
        """Send a test notice to a receiver now; what it said. It is no alert of anything, and is not repeated."""
        try:
            tries = await shell.send_test(name)
        except KeyError:
            known = ", ".join(r.name for r in engine.receivers) or "none"
            raise HTTPException(404, f"no receiver {name[:80]!r}; the settings have: {known}") from None
        found = [
            Tried(notice=word, outcome=a.outcome, status=a.status, said=a.said, error=a.error) for word, a in tries
        ]
        return Test(receiver=name, taken=all(t.outcome == "taken" for t in found), tries=found)

    @app.get("/v1/notifications")
    async def notifications(
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
        receiver: Annotated[str | None, Query(max_length=63)] = None,
        state: Literal["pending", "delivered", "refused", "dropped"] | None = None,
        before: Annotated[int | None, Query(ge=1, lt=2**63)] = None,
    ) -> documents.Page:
        """Notifications, newest first, and what each receiver said of them. `before`: with a lower `number`."""
        return documents.by_number(engine.store.notifications(limit, receiver, state, before), limit)
