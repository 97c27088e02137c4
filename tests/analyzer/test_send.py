"""Sending to real servers: HTTP and SMTP ones on loopback, with TLS of an authority of one's own, and Alertmanager."""

from __future__ import annotations

import asyncio
import json
import logging
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import trustme
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

from analyzer.alerting.alert import Alert
from analyzer.alerting.answer import Answer
from analyzer.alerting.notice import Notice
from analyzer.alerting.receivers import KINDS
from analyzer.alerting.receivers.alertmanager_webhook import AlertmanagerWebhook
from analyzer.alerting.receivers.base import Receiver
from analyzer.alerting.send import Sender, send_test
from tests.analyzer.desk import alert, mitigated, over
from tests.analyzer.receivers import FIRING, MITIGATED, OVER, nasty, notice, secret, serving

HOOK = "/services/T0/B0/very-s3cret"


def say(receiver: Receiver, what: Notice | None = None) -> Answer:
    """Send one notice."""

    async def run() -> Answer:
        sender = Sender()
        try:
            return await sender.send(receiver, what or notice())
        finally:
            await sender.aclose()

    return asyncio.run(run())


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def ca_file(authority: trustme.CA, tmp_path: Path) -> Path:
    path = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(path)
    return path


def make(kind: str, **options: Any) -> Receiver:
    return KINDS[kind].model_validate({"name": "ops", **options})


# HTTP


def test_what_a_receiver_said_is_kept_as_far_as_500_bytes() -> None:
    with serving() as server:
        server.status, server.said = 400, b"no such field: kind " * 100
        found = say(make("alertmanager-webhook", url=server.url))
    assert (found.outcome, found.status, len(found.said)) == ("refused", 400, 500)
    assert found.said.startswith("no such field: kind")


def test_retry_after_is_read_from_the_answer() -> None:
    with serving() as server:
        server.status, server.headers = 429, {"Retry-After": "17"}
        assert say(make("alertmanager-webhook", url=server.url)).retry_after_s == 17


@pytest.mark.parametrize("kind", ["slack", "teams"])
def test_a_secret_url_is_posted_to_and_shown_nowhere(
    kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """The receiver repeats the URL in its answer; the connection fails and names it; the client would log it."""
    caplog.set_level(logging.DEBUG)
    with serving() as server:
        path = secret(tmp_path, "url", server.url + HOOK)
        server.status, server.said = 404, f"no_service at {server.url}{HOOK}".encode()
        refused = say(make(kind, url_file=path))
        assert [(method, where) for method, where, _, _ in server.got] == [("POST", HOOK)]
    down = say(make(kind, url_file=path))
    path.write_text(f"http://[::1{HOOK}")
    wrong = say(make(kind, url_file=path))
    assert (refused.outcome, refused.said, down.outcome, wrong.outcome) == (
        "refused",
        "no_service at ***",
        "later",
        "later",
    )
    shown = repr((refused, down, wrong)) + caplog.text + "".join(capfd.readouterr())
    assert "very-s3cret" not in shown


def test_a_secret_is_read_at_each_attempt(tmp_path: Path) -> None:
    path = secret(tmp_path, "key", "A" * 32)
    with serving() as server:
        receiver = make("pagerduty", routing_key_file=path, url=server.url)
        say(receiver, notice(FIRING))
        path.write_text("B" * 32)
        say(receiver, notice(FIRING))
        path.unlink()
        missing = say(receiver, notice(FIRING))
        keys = [body["routing_key"] for _, _, _, body in server.got]
    assert keys == ["A" * 32, "B" * 32]
    assert missing.outcome == "later"
    assert "key" in missing.error


def test_the_first_trouble_of_several_requests_is_the_answer(tmp_path: Path) -> None:
    path = secret(tmp_path, "key", "K" * 32)
    with serving() as server:
        server.status = 503
        receiver = make("pagerduty", routing_key_file=path, url=server.url)
        assert say(receiver, notice(FIRING, MITIGATED, OVER)).outcome == "later"
        assert len(server.got) == 1  # the others come again with it
        server.status = 400
        assert say(receiver, notice(FIRING, MITIGATED, OVER)).outcome == "refused"
        assert len(server.got) == 4  # one that is refused does not keep the others from being told


def test_tls_by_an_authority_of_ones_own(authority: trustme.CA, ca_file: Path, tmp_path: Path) -> None:
    with serving(authority) as server:
        assert say(make("alertmanager-webhook", url=server.url, ca_file=ca_file)).outcome == "taken"
        stranger = say(make("alertmanager-webhook", url=server.url))
        assert (stranger.outcome, "certificate verify failed" in stranger.error.lower()) == ("later", True)
        other = tmp_path / "other.pem"
        trustme.CA().cert_pem.write_to_path(other)
        assert "verify failed" in say(make("alertmanager-webhook", url=server.url, ca_file=other)).error.lower()
        other.write_text("no certificate")
        assert f"ca_file: {other}" in say(make("alertmanager-webhook", url=server.url, ca_file=other)).error
        other.unlink()
        assert f"ca_file: {other}" in say(make("alertmanager-webhook", url=server.url, ca_file=other)).error
        assert len(server.got) == 1


@pytest.mark.parametrize(
    ("said", "status"),
    [
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", 200),
        (b"HTTP/1.1 200 OK\r\nx-a: 1", 0),
        (b"HTTP/1.1 410 Gone\r\ntransfer-encoding: chunked\r\n\r\n", 410),
    ],
)
def test_a_receiver_that_never_ends_is_not_waited_for(said: bytes, status: int) -> None:
    """A notification that is under way for ever would never be tried again, and would hold up those after it."""

    async def drip(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(said)
        while not writer.is_closing():
            writer.write(b"1\r\nx\r\n" if status else b"x")
            await writer.drain()
            await asyncio.sleep(0.05)

    async def story() -> Answer:
        server = await asyncio.start_server(drip, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        sender = Sender()
        try:
            async with asyncio.timeout(5):
                return await sender.send(
                    make("alertmanager-webhook", url=f"http://127.0.0.1:{port}/", timeout_s=0.5), notice()
                )
        finally:
            server.close()
            await sender.aclose()

    found = asyncio.run(story())
    assert found.status == status
    assert found.outcome == {200: "taken", 0: "later", 410: "gone"}[status]


def test_a_test_notice_is_ended_where_it_would_stay_open(tmp_path: Path) -> None:
    async def tried(receiver: Receiver) -> list[tuple[str, Answer]]:
        sender = Sender()
        try:
            return await send_test(sender, receiver, "r", "http://a", time.time_ns())
        finally:
            await sender.aclose()

    with serving() as server:
        hook = asyncio.run(tried(make("alertmanager-webhook", url=server.url)))
        chat = asyncio.run(tried(make("slack", url_file=secret(tmp_path, "u", server.url + HOOK))))
        server.status = 403
        refused = asyncio.run(tried(make("alertmanager-webhook", url=server.url)))
        bodies = [body for _, _, _, body in server.got]
    assert [(w, a.outcome) for w, a in hook] == [("firing", "taken"), ("resolved", "taken")]
    assert [w for w, _ in chat] == ["firing"]
    assert [(w, a.outcome, a.status) for w, a in refused] == [("firing", "refused", 403)]
    assert [b["status"] for b in bodies[:2]] == ["firing", "resolved"]
    assert bodies[0]["alerts"][0]["fingerprint"] == bodies[1]["alerts"][0]["fingerprint"]
    assert "nothing is wrong" in bodies[0]["alerts"][0]["annotations"]["summary"]


# SMTP, against aiosmtpd


class Mailbox:
    """What a mail server was given; `refuse` answers RCPT."""

    def __init__(self) -> None:
        self.mails: list[Envelope] = []
        self.logins: list[tuple[bytes, bytes]] = []
        self.refuse = ""

    async def handle_RCPT(self, server: SMTP, session: Session, envelope: Envelope, to: str, options: list[str]) -> str:
        if self.refuse and to != "fine@example.net":
            return self.refuse
        envelope.rcpt_tos.append(to)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        self.mails.append(envelope)
        return "250 taken"

    def login(self, server: SMTP, session: Session, envelope: Envelope, how: str, data: Any) -> AuthResult:
        assert isinstance(data, LoginPassword)
        self.logins.append((data.login, data.password))
        return AuthResult(success=data.password == b"right-password", handled=False)


def mail_server(
    authority: trustme.CA | None, *, starttls: bool = True, auth: bool = False
) -> Iterator[tuple[Mailbox, int]]:
    box = Mailbox()
    options: dict[str, Any] = {}
    if authority is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("localhost", "127.0.0.1").configure_cert(context)
        options["tls_context" if starttls else "ssl_context"] = context
    if auth:
        options |= {"authenticator": box.login, "auth_required": True, "auth_require_tls": starttls}
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    controller = Controller(box, hostname="127.0.0.1", port=port, **options)
    controller.start()
    try:
        yield box, port
    finally:
        controller.stop()


@pytest.fixture
def plain() -> Iterator[tuple[Mailbox, int]]:
    yield from mail_server(None)


@pytest.fixture
def starttls(authority: trustme.CA) -> Iterator[tuple[Mailbox, int]]:
    yield from mail_server(authority, auth=True)


@pytest.fixture
def encrypted(authority: trustme.CA) -> Iterator[tuple[Mailbox, int]]:
    yield from mail_server(authority, starttls=False)


def mail(port: int, **options: Any) -> Receiver:
    base = {"host": "localhost", "port": port, "from": "tgw@example.net", "to": ["ops@example.net"]}
    return make("email", **(base | options))


def test_a_mail_is_delivered_to_this_machine_in_the_open(plain: tuple[Mailbox, int]) -> None:
    box, port = plain
    found = say(mail(port, tls="none"), notice(FIRING, nasty()))
    assert (found.outcome, found.status) == ("taken", 250)
    (envelope,) = box.mails
    assert (envelope.mail_from, envelope.rcpt_tos) == ("tgw@example.net", ["ops@example.net"])
    assert b"ld-a1 is in trouble" in (envelope.content or b"")


def test_starttls_with_a_login_by_file(starttls: tuple[Mailbox, int], ca_file: Path, tmp_path: Path) -> None:
    box, port = starttls
    password = secret(tmp_path, "password", "right-password")
    receiver = mail(port, ca_file=ca_file, user="tgw", password_file=password)
    assert say(receiver).outcome == "taken"
    assert box.logins == [(b"tgw", b"right-password")]
    password.write_text("wrong-password")
    wrong = say(receiver)
    assert (wrong.outcome, wrong.status) == ("refused", 535)
    assert "wrong-password" not in repr(wrong)
    stranger = say(mail(port, user="tgw", password_file=password))
    assert stranger.outcome == "later"
    assert "verify failed" in stranger.error.lower()
    assert len(box.mails) == 1


def test_tls_from_the_first_byte(encrypted: tuple[Mailbox, int], ca_file: Path) -> None:
    box, port = encrypted
    assert say(mail(port, tls="tls", ca_file=ca_file)).outcome == "taken"
    assert len(box.mails) == 1


def test_nothing_is_sent_where_starttls_is_not_to_be_had(plain: tuple[Mailbox, int]) -> None:
    box, port = plain
    found = say(mail(port))
    assert (found.outcome, "STARTTLS" in found.error) == ("later", True)
    assert not box.mails


@pytest.mark.parametrize(("refusal", "outcome"), [("550 no such user", "refused"), ("451 try later", "later")])
def test_what_a_mail_server_says_of_recipients(plain: tuple[Mailbox, int], refusal: str, outcome: str) -> None:
    box, port = plain
    box.refuse = refusal
    found = say(mail(port, tls="none"))
    assert (found.outcome, found.status) == (outcome, int(refusal[:3]))
    assert refusal[4:] in found.said
    # Some of several are told: it is not sent to them again, and the others are named.
    part = say(mail(port, tls="none", to=["fine@example.net", "ops@example.net"]))
    assert (part.outcome, "ops@example.net" in part.said) == ("taken", True)


def test_a_mail_server_that_never_speaks_is_not_waited_for() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(8)
        began = time.monotonic()
        found = say(mail(silent.getsockname()[1], host="127.0.0.1", timeout_s=0.5))
        assert found.outcome == "later"
        assert time.monotonic() - began < 5


def test_a_mail_server_that_drips_holds_no_thread() -> None:
    """Each byte comes in time, their end never does: the attempt is cut from outside."""

    async def drip(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while not writer.is_closing():
            writer.write(b"2")
            await writer.drain()
            await asyncio.sleep(0.05)

    async def story() -> tuple[Answer, int]:
        server = await asyncio.start_server(drip, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        sender = Sender()
        receiver = mail(port, host="127.0.0.1", timeout_s=0.5)
        try:
            async with asyncio.timeout(20):
                found = [await sender.send(receiver, notice()) for _ in range(6)]  # more than there are threads
                await asyncio.sleep(0.3)
                return found[-1], sender._mail._work_queue.qsize()
        finally:
            server.close()
            await sender.aclose()

    found, queued = asyncio.run(story())
    assert (found.outcome, queued) == ("later", 0)


# Alertmanager itself


@pytest.fixture(scope="module")
def alertmanager(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    binary = shutil.which("prometheus-alertmanager") or shutil.which("alertmanager")
    if binary is None:
        pytest.skip("needs Alertmanager (tools/setup.sh --test installs prometheus-alertmanager)")
    place = tmp_path_factory.mktemp("alertmanager")
    (place / "config.yml").write_text("route: {receiver: none}\nreceivers: [{name: none}]\n")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    with (place / "log").open("w") as log:
        process = subprocess.Popen(
            [binary, f"--config.file={place}/config.yml", f"--storage.path={place}/data", "--cluster.listen-address=",
             f"--web.listen-address=127.0.0.1:{port}"],
            stdout=log, stderr=subprocess.STDOUT,
        )  # fmt: skip
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 30
        while True:
            try:
                if httpx.get(f"{url}/-/ready", timeout=1, trust_env=False).status_code == 200:
                    break
            except httpx.HTTPError:
                pass
            assert process.poll() is None, (place / "log").read_text()
            assert time.monotonic() < deadline, (place / "log").read_text()
            time.sleep(0.1)
        yield url
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def held(url: str) -> list[dict[str, Any]]:
    """The alerts that Alertmanager holds to be active."""
    found = httpx.get(f"{url}/api/v2/alerts?active=true", timeout=5, trust_env=False)
    return sorted(found.json(), key=lambda a: str(a["labels"]["subject"]))


def now_notice(*alerts: Alert) -> Notice:
    return notice(*alerts, now_ns=time.time_ns())


def test_alertmanager_takes_what_is_rendered_and_holds_one_alert_over_its_whole_life(alertmanager: str) -> None:
    receiver = make("alertmanager", url=alertmanager, keep_alive_s=30)
    begin = time.time_ns() - 60 * 10**9
    fault = alert("node_down", "ld-a1", starts=begin)
    assert say(receiver, now_notice(fault)).outcome == "taken"
    (first,) = held(alertmanager)
    assert first["status"]["state"] == "active"
    assert first["labels"] == fault.labels
    assert say(receiver, now_notice(mitigated(fault))).outcome == "taken"  # the same alert: no label changed
    (still,) = held(alertmanager)
    assert (still["fingerprint"], still["startsAt"]) == (first["fingerprint"], first["startsAt"])
    assert still["endsAt"] >= first["endsAt"]
    assert say(receiver, now_notice(over(fault, time.time_ns() - 10**9))).outcome == "taken"
    assert held(alertmanager) == []


def test_alertmanager_forgets_what_is_not_kept_alive(alertmanager: str) -> None:
    receiver = make("alertmanager", url=alertmanager, keep_alive_s=1)
    fault = alert("node_down", "ld-b1", starts=time.time_ns() - 10**9)
    say(receiver, now_notice(fault))
    for _ in range(5):
        time.sleep(1.0)
        say(receiver, now_notice(fault))
    assert len(held(alertmanager)) == 1  # longer than one endsAt ahead
    deadline = time.monotonic() + 15
    while held(alertmanager):
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_alertmanager_refuses_what_is_wrong_for_good(alertmanager: str) -> None:
    """An alert without labels: 400, and what it said is kept."""
    receiver = make("alertmanager", url=alertmanager)
    nameless = alert("node_down", "ld-c1", starts=time.time_ns())
    nameless.labels.clear()
    found = say(receiver, now_notice(nameless))
    assert (found.outcome, found.status) == ("refused", 400)
    assert "label" in found.said


def test_a_webhook_says_what_alertmanagers_own_says(alertmanager: str, tmp_path: Path) -> None:
    """The real one's webhook about an alert of ours, beside what we send about it: the same, down to the alerts."""
    with serving() as server:
        config = tmp_path / "config.yml"
        config.write_text(
            "route: {receiver: hook, group_by: [region, cluster], group_wait: 0s}\n"
            f"receivers: [{{name: hook, webhook_configs: [{{url: '{server.url}/real'}}]}}]\n"
        )
        binary = shutil.which("prometheus-alertmanager") or shutil.which("alertmanager") or ""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        process = subprocess.Popen(
            [binary, f"--config.file={config}", f"--storage.path={tmp_path}/data", "--cluster.listen-address=",
             f"--web.listen-address=127.0.0.1:{port}"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            fault = alert("node_down", "ld-a1", starts=time.time_ns() - 10**9)
            deadline = time.monotonic() + 30
            while say(make("alertmanager", url=f"http://127.0.0.1:{port}"), now_notice(fault)).outcome != "taken":
                assert time.monotonic() < deadline
                time.sleep(0.2)
            while not server.got:
                assert time.monotonic() < deadline
                time.sleep(0.1)
            real = server.got[0][3]
        finally:
            process.terminate()
            process.wait(10)
        assert say(AlertmanagerWebhook.model_validate({"name": "ops", "url": server.url}), now_notice(fault))
        ours = server.got[-1][3]
    assert set(ours) == set(real)
    assert set(ours["alerts"][0]) == set(real["alerts"][0])
    assert ours["alerts"][0]["labels"] == real["alerts"][0]["labels"]
    assert [type(ours[k]) for k in sorted(ours)] == [type(real[k]) for k in sorted(real)]
    assert ours["commonLabels"] == real["commonLabels"]
    assert ours["groupKey"] == real["groupKey"]
    assert json.dumps(ours["groupLabels"], sort_keys=True) == json.dumps(real["groupLabels"], sort_keys=True)
