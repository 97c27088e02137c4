"""Signatures as Standard Webhooks describes them (standardwebhooks.com): HMAC-SHA256 over id, timestamp and body."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac

PREFIX = "whsec_"


def key_of(secret: str) -> bytes:
    """The key bytes of a secret (`whsec_` + base64); ValueError for anything else."""
    if not secret.startswith(PREFIX):
        raise ValueError(f"expected a secret that starts with {PREFIX}")
    try:
        key = base64.b64decode(secret.removeprefix(PREFIX), validate=True)
    except binascii.Error:
        raise ValueError(f"expected base64 after {PREFIX}") from None
    if not 16 <= len(key) <= 96:
        raise ValueError(f"expected a secret of 16 to 96 bytes, got {len(key)}")
    return key


def headers(secret: str | None, identity: str, timestamp_s: int, body: bytes) -> dict[str, str]:
    """webhook-id and webhook-timestamp, and with a secret webhook-signature."""
    out = {"webhook-id": identity, "webhook-timestamp": str(timestamp_s)}
    if secret is not None:
        signed = f"{identity}.{timestamp_s}.".encode() + body
        digest = hmac.new(key_of(secret), signed, hashlib.sha256).digest()
        out["webhook-signature"] = "v1," + base64.b64encode(digest).decode()
    return out
