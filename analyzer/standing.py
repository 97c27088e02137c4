"""How a fault's nodes stand after the traffic is clean: whether each is back, and what redundancy is left."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from analyzer import feeds as feed_states
from analyzer.collapse import NodeReport
from analyzer.region import Situation

_NOUNS = {"clb": "LD", "eip": "EIP node", "vswitch": "host"}
_STILL = {"jitter": "not known to be sound", "feed_lost": "without a feed"}


def back(
    node: str, family: str, boots: Mapping[str, str], situation: Situation, reports: Mapping[str, NodeReport]
) -> str:
    """Why a node counts as back; "" while it does not. `boots`: which start of it showed the fault."""
    if node not in situation.region.nodes:
        return f"{node} is not of the fleet any more"
    if situation.maintained(node):
        return f"{node} was drained"
    report = reports.get(node)
    view = situation.view.nodes.get(node)
    if report is None or situation.view.state(node) == "unreachable":
        return ""
    if view is not None and view.forwarding_alive is False:
        return ""  # its process answers, but a worker is stuck
    if report.verdict == "ok" and report.feed not in feed_states.STOPPED:
        return f"{node} forwards again"
    if report.verdict not in ("idle", "learning"):
        return ""
    if report.feed != feed_states.BEATING or situation.view.state(node) != "up":
        return ""
    # What drops packets only while it has some cannot be told from a sound node while it has none.
    if family == "jitter" and report.boot == boots.get(node, report.boot):
        return ""
    return f"{node} runs again" if family != "jitter" else f"{node} was started again"


def still(family: str, nodes: Sequence[str]) -> str:
    """What is left of a fault whose traffic is clean."""
    return f"{', '.join(nodes)} {'is' if len(nodes) == 1 else 'are'} still {_STILL.get(family, 'down')}"


def redundancy(cluster: str, faulty: Collection[str], situation: Situation, down: Collection[str]) -> str:
    """What is left of a cluster without its faulty nodes, what it carries, and what one more loss would do."""
    region = situation.region
    if cluster not in region.clusters:
        return "its cluster is not of the fleet any more"
    role = region.clusters[cluster].role
    members = situation.expected_members(cluster)
    living = [n for n in members if n not in down and n not in faulty]
    noun = _NOUNS.get(role, "node")
    text = f"{len(living)} of {len(members)} {noun}{'' if len(members) == 1 else 's'} of {cluster} left"
    if role == "eip":
        end = "one more loss takes every VIP off the network" if len(living) == 1 else "one more loss is carried"
        return f"{text}; {end}" if living else f"{text}: no VIP can be reached"
    if role != "clb":
        return text
    served = situation.vips_of(cluster)
    if not served:
        return f"{text}, carries no VIP"
    text += f", carries {len(served)} VIP{'' if len(served) == 1 else 's'}"
    rails, policy = situation.view.rails, region.policy
    live = [region.nodes[n].capacity for n in living]
    demand = sum(region.vips[v].demand for v in served)
    mode = rails.get("on_crash", policy.on_crash)
    short = not live or sum(live) - max(live) < demand or len(live) == 1
    if not short and mode != "migrate":
        return f"{text}; one more loss is carried"
    if mode == "report" or not rails.get("actions_enabled", policy.actions_enabled):
        return f"{text}; one more loss is more than it can carry"
    return f"{text}; one more loss moves them"
