"""E-mail over SMTP, with STARTTLS or TLS. The mails of a group are one thread."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from email.message import EmailMessage
from email.utils import format_datetime
from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from analyzer.alerting.notice import Notice, cut, group_key, headline, one_line, rfc3339, word
from analyzer.alerting.receivers.base import Mail, Message, Receiver
from service.listen import is_loopback

SUBJECT = 200
Address = Annotated[str, Field(pattern=r"^[^@\s<>,;]{1,64}@[^@\s<>,;]{1,255}$")]


class Email(Receiver):
    """E-mail over SMTP: STARTTLS (the default), TLS from the first byte, or none on this machine."""

    model_config = ConfigDict(populate_by_name=True)
    EXAMPLE: ClassVar[str] = """\
[[receivers]]
name = "mail"
kind = "email"
host = "mail.example.net"
port = 587
tls = "starttls"                        # or "tls" (port 465), or "none" to this machine
user = "tgw"                            # optional, with password_file
password_file = "/etc/tgw/mail.password"
from = "tgw@example.net"
to = ["ops@example.net"]
"""

    kind: Literal["email"] = "email"
    host: str = Field(min_length=1, max_length=255)
    port: int = Field(default=587, ge=1, le=65535)
    tls: Literal["starttls", "tls", "none"] = "starttls"
    user: str | None = None
    password_file: Path | None = None
    sender: Address = Field(alias="from")
    to: tuple[Address, ...] = Field(min_length=1, max_length=50)
    timeout_s: float = Field(default=20.0, gt=0, le=60)

    @model_validator(mode="after")
    def _safe(self) -> Self:
        if (self.user is None) != (self.password_file is None):
            raise ValueError("expected user and password_file together")
        if self.tls == "none" and not is_loopback(self.host):
            raise ValueError(f'tls: expected "starttls" or "tls": {self.host} is not this machine')
        return self

    @property
    def target(self) -> str:
        return f"{', '.join(self.to)} by {self.host}:{self.port}"

    def secret_files(self) -> dict[str, Path]:
        return {"password_file": self.password_file} if self.password_file is not None else {}

    def render(self, notice: Notice, secrets: Mapping[str, str]) -> Sequence[Message]:
        message = EmailMessage()
        message["Subject"] = cut(one_line(headline(notice)), SUBJECT)
        message["From"] = self.sender
        message["To"] = ", ".join(self.to)
        message["Date"] = format_datetime(datetime.fromtimestamp(notice.now_ns / 1e9, UTC))
        domain = self.sender.rpartition("@")[2]
        thread = hashlib.sha256(f"{notice.receiver} {group_key(notice.group)}".encode()).hexdigest()[:32]
        message["Message-ID"] = f"<{notice.id}@{domain}>"
        message["References"] = f"<{thread}@{domain}>"
        message["Auto-Submitted"] = "auto-generated"
        message.set_content(text(notice))
        return [Mail(message)]


def text(notice: Notice) -> str:
    """The body, as plain text."""
    lines = []
    for alert in notice.alerts:
        lines += [
            f"{word(alert).upper()} ({alert.severity}): {alert.labels['alertname']} {alert.labels.get('subject', '')}",
            f"  {one_line(alert.annotations['summary'])}",
            f"  since {rfc3339(alert.starts_ns)}" + (f", ended {rfc3339(alert.ends_ns)}" if alert.ends_ns else ""),
            "" if notice.test else f"  {notice.link(alert)}\n",
        ]
    if notice.more:
        lines.append(f"and {notice.more} more")
    return "\n".join(lines) + "\n"
