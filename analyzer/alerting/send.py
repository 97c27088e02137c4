"""Carries what a receiver renders to it: HTTP here, e-mail in mail.py. Never raises for what the other side does."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from analyzer.alerting import answer as answers
from analyzer.alerting import mail
from analyzer.alerting.alert import Alert
from analyzer.alerting.answer import SAID_BYTES, Answer
from analyzer.alerting.notice import Notice
from analyzer.alerting.receivers.base import Mail, Post, Receiver, authority
from contract.incidents import CLOSED, OPEN

# One notification may be several requests; this is for all of them.
LONGEST_S = 60.0
MAIL_THREADS = 4


class Sender:
    """Sends notices. Close it with `aclose`."""

    def __init__(self) -> None:
        # It would write every URL, and some are secrets.
        logging.getLogger("httpx").setLevel(logging.WARNING)
        logging.getLogger("httpcore").setLevel(logging.WARNING)
        self._http = httpx.AsyncClient(trust_env=False)
        self._mail = ThreadPoolExecutor(MAIL_THREADS, "mail")

    async def aclose(self) -> None:
        """Close connections; threads that still wait for a mail server are left."""
        await self._http.aclose()
        self._mail.shutdown(wait=False, cancel_futures=True)

    async def send(self, receiver: Receiver, notice: Notice) -> Answer:
        """Say it. The answer to several requests is that which asks for the most."""
        secrets: dict[str, str] = {}
        try:
            secrets = receiver.secrets()
            messages = receiver.render(notice, secrets)
            found = []
            async with asyncio.timeout(LONGEST_S):
                for message in messages:
                    if isinstance(message, Mail):
                        found.append(await mail.send(receiver, message, secrets, self._mail))
                    else:
                        found.append(await self._post(receiver, message))
                    if found[-1].outcome in ("later", "gone"):
                        break  # what was taken already is taken again without harm
            answer = answers.worst(found)
        except TimeoutError:
            answer = Answer("later", error=f"no end within {LONGEST_S:.0f} s")
        except (OSError, ValueError) as error:  # a secret that cannot be read, a certificate that is none
            answer = Answer("later", error=f"{type(error).__name__}: {error}")
        return _without(answer, secrets)

    async def _post(self, receiver: Receiver, message: Post) -> Answer:
        status, headers, said = 0, httpx.Headers(), b""
        try:
            # The whole attempt has an end, and of the answer's body, which may have none, the beginning is read.
            async with (
                asyncio.timeout(receiver.timeout_s),
                self._client(receiver.ca_file) as client,
                client.stream(
                    message.method,
                    message.url,
                    content=message.body,
                    headers=dict(message.headers),
                    timeout=receiver.timeout_s,
                ) as response,
            ):
                status, headers = response.status_code, response.headers
                async for piece in response.aiter_bytes():
                    said += piece[:SAID_BYTES]
                    if len(said) >= SAID_BYTES:
                        break
        except (httpx.HTTPError, httpx.InvalidURL, OSError, TimeoutError) as error:
            if not status:
                return Answer("later", error=f"{type(error).__name__}: {error}".rstrip(": "))
        text = said[:SAID_BYTES].decode(errors="replace")
        return answers.of_http(status, headers, text, time.time())

    @contextlib.asynccontextmanager
    async def _client(self, ca_file: Path | None) -> AsyncIterator[httpx.AsyncClient]:
        if ca_file is None:
            yield self._http
            return
        async with httpx.AsyncClient(trust_env=False, verify=authority(ca_file)) as client:
            yield client


def _without(answer: Answer, secrets: Mapping[str, str]) -> Answer:
    """The answer with every secret in it blotted out, whoever wrote it there."""
    words = set()
    for secret in secrets.values():
        words.add(secret)
        path = urlsplit(secret).path if "://" in secret else ""
        if len(path) > 1:
            words.add(path)
    said, error = answer.said, answer.error
    for word in sorted(words, key=len, reverse=True):
        said, error = said.replace(word, "***"), error.replace(word, "***")
    return Answer(answer.outcome, answer.status, said, error, answer.retry_after_s)


async def send_test(sender: Sender, receiver: Receiver, region: str, url: str, now_ns: int) -> list[tuple[str, Answer]]:
    """Send a test notice: it fires, and where that would stay open it is ended. What was said, and each answer."""
    out = []
    for word in ("firing", "resolved") if receiver.KEEPS_STATE else ("firing",):
        answer = await sender.send(receiver, test_notice(receiver, region, url, now_ns, over=word == "resolved"))
        out.append((word, answer))
        if answer.outcome != "taken":
            break
    return out


def test_notice(receiver: Receiver, region: str, url: str, now_ns: int, *, over: bool) -> Notice:
    """A notice that says that it is a test."""
    labels = {"alertname": "TgwTest", "region": region, "severity": "info", "subject": receiver.name}
    alert = Alert(
        "test", f"test-{receiver.name}", "test", labels,
        {
            "summary": f"a test of receiver {receiver.name}: nothing is wrong",
            "incident": "test",
            "state": CLOSED if over else OPEN,
            "severity_now": "info",
            "description": f"Somebody sent a test notice from the analyzer of region {region}",
        },
        (), (), now_ns - 10**9, now_ns if over else 0, "info", CLOSED if over else OPEN,
    )  # fmt: skip
    group = {k: labels[k] for k in receiver.group_by if k in labels}
    identity = f"msg_test_{receiver.name}_{now_ns}_{int(over)}"
    return Notice(
        identity, receiver.name, region, group, (alert,), url, now_ns, frozenset({alert.fingerprint}), 0, True
    )
