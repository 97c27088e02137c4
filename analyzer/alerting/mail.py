"""Carries one e-mail to its server: smtplib in a thread, with an end."""

from __future__ import annotations

import asyncio
import contextlib
import smtplib
import socket
import ssl
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from analyzer.alerting.answer import SAID_BYTES, Answer
from analyzer.alerting.receivers.base import Mail, Receiver, authority
from analyzer.alerting.receivers.email import Email


class _Line:
    """The connection of one attempt; `cut` ends it from outside, whatever it waits for."""

    def __init__(self) -> None:
        self.smtp: smtplib.SMTP | None = None
        self.ended = False

    def open(self, receiver: Email, context: ssl.SSLContext) -> smtplib.SMTP:
        """Connect. The connection can be cut from its first byte on."""
        line = self

        class Plain(smtplib.SMTP):
            def connect(self, *args: Any, **options: Any) -> tuple[int, bytes]:
                line.smtp = self
                return super().connect(*args, **options)

        class Encrypted(smtplib.SMTP_SSL):
            def connect(self, *args: Any, **options: Any) -> tuple[int, bytes]:
                line.smtp = self
                return super().connect(*args, **options)

        if receiver.tls == "tls":
            return Encrypted(receiver.host, receiver.port, timeout=receiver.timeout_s, context=context)
        return Plain(receiver.host, receiver.port, timeout=receiver.timeout_s)

    def close(self) -> None:
        """Say good-bye. What the server thinks of that changes nothing: the mail is in, or it is not."""
        if self.smtp is not None:
            with contextlib.suppress(smtplib.SMTPException, OSError):
                self.smtp.quit()
            self.smtp.close()

    def cut(self) -> None:
        """Make whatever waits on it fail."""
        self.ended = True
        sock = self.smtp.sock if self.smtp is not None else None
        if sock is not None:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)


async def send(receiver: Receiver, message: Mail, secrets: Mapping[str, str], pool: ThreadPoolExecutor) -> Answer:
    """Send it within the receiver's time; ValueError, OSError for its certificate file."""
    if not isinstance(receiver, Email):
        raise TypeError(f"receiver {receiver.name} is no e-mail receiver")
    context = authority(receiver.ca_file)
    line = _Line()
    try:
        async with asyncio.timeout(receiver.timeout_s):
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(pool, _talk, receiver, message, secrets, context, line)
    except TimeoutError:
        line.cut()
        return Answer("later", error=f"no end within {receiver.timeout_s:g} s")


def _talk(receiver: Email, message: Mail, secrets: Mapping[str, str], context: ssl.SSLContext, line: _Line) -> Answer:
    if line.ended:
        return Answer("later", error="it waited too long for a thread")
    try:
        try:
            smtp = line.open(receiver, context)
            smtp.ehlo_or_helo_if_needed()
            if receiver.tls == "starttls":
                smtp.starttls(context=context)
            if receiver.user is not None:
                smtp.login(receiver.user, secrets["password_file"])
            left_out = smtp.send_message(message.message)
        finally:
            line.close()
        said = "; ".join(f"{to}: {code} {_text(text)}" for to, (code, text) in left_out.items())
        return Answer("taken", 250, said[:SAID_BYTES])
    except smtplib.SMTPRecipientsRefused as error:
        codes = [code for code, _ in error.recipients.values()]
        said = "; ".join(f"{to}: {code} {_text(text)}" for to, (code, text) in error.recipients.items())
        final = all(code >= 500 for code in codes)
        return Answer("refused" if final else "later", max(codes), said[:SAID_BYTES], "every recipient was refused")
    except smtplib.SMTPResponseException as error:
        final = error.smtp_code >= 500
        text = _text(error.smtp_error)[:SAID_BYTES]
        return Answer("refused" if final else "later", error.smtp_code, text, f"SMTP {error.smtp_code}")
    except (smtplib.SMTPException, OSError, ValueError) as error:
        return Answer("later", error=f"{type(error).__name__}: {error}")


def _text(said: bytes | str) -> str:
    return said.decode(errors="replace") if isinstance(said, bytes) else said
