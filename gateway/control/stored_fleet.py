"""What can be known of a stored fleet document that a rule of this program refuses."""

from __future__ import annotations

from typing import Any

from contract.fleet import Fleet
from gateway.control.store import Store, StoredFleet


def fault(stored: StoredFleet | None, store: Store) -> str:
    """Why control must hold still with what is stored; "" when it need not."""
    words = list(store.open_faults.values())
    if stored is not None and stored.fleet is None:
        more = f" and {len(stored.problems) - 5} more" if len(stored.problems) > 5 else ""
        words.insert(0, f"fleet document {stored.epoch} is refused: {'; '.join(map(str, stored.problems[:5]))}{more}")
    return "; ".join(words)


def homes(stored: StoredFleet | None) -> dict[int, str]:
    """Where VIPs were at home in a document that is refused, as far as it can be read."""
    vips = stored.raw.get("vips") if stored is not None else None
    found = {}
    for vip in vips if isinstance(vips, list) else []:
        if isinstance(vip, dict) and isinstance(vip.get("id"), int) and isinstance(vip.get("cluster"), str):
            found[vip["id"]] = vip["cluster"]
    return found


def policy_change(old: Fleet | None, fleet: Fleet, before: Any = None) -> dict[str, Any]:
    """The fields of the policy that the document says otherwise than the one before (`before`: of a refused one)."""
    fields = fleet.policy.model_dump(mode="json")
    known = old.policy.model_dump(mode="json") if old is not None else before
    if not isinstance(known, dict):
        known = {}
    changed = {k for k, v in fields.items() if k not in known or known[k] != v}
    return {k: v for k, v in fleet.policy.model_dump().items() if k in changed}
