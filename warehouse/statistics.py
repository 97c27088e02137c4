"""Loss and round trips of probes as pandas tables: for the command line, a notebook, a report."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from warehouse.client import Connection

if TYPE_CHECKING:
    import pandas as pd

By = Literal["vip", "prober", "cluster", "port"]

# Joined to the names of things; a probe of a VIP that left the fleet document keeps its number.
_PROBES = """
SELECT p.prober AS prober, p.outcome AS outcome, p.rtt_ns AS rtt_ns, p.src_port AS port,
if(v.name = '', concat('vip id ', toString(p.vip_id)), toString(v.name)) AS vip,
if(v.home = '', 'unknown', toString(v.home)) AS cluster
FROM probes AS p LEFT JOIN vips AS v ON v.id = p.vip_id
WHERE p.ts >= now64(9) - toIntervalMillisecond({span_ms:UInt64})
"""
COLUMNS = ("probes", "answered", "refused", "silent", "unsent", "loss", "rtt_p50_ms", "rtt_p99_ms", "rtt_max_ms")


def probes(connection: Connection, span_s: float) -> pd.DataFrame:
    """The probes of the last `span_s` seconds, one a row: prober, outcome, rtt_ns, port, vip, cluster."""
    return connection.frame(_PROBES, {"span_ms": round(span_s * 1000)})


def summary(frame: pd.DataFrame, by: By) -> pd.DataFrame:
    """COLUMNS by `by` (its index), the worst loss first. Round trips are of answered probes, NaN where there is none.

    `loss`: share of the probes sent that were not answered; NaN when none was sent.
    """
    import pandas as pd

    if frame.empty:
        return pd.DataFrame(columns=list(COLUMNS), index=pd.Index([], name=by))
    counts = pd.crosstab(frame[by], frame["outcome"])
    counts = counts.reindex(columns=["answered", "refused", "silent", "unsent"], fill_value=0)
    out = counts.rename_axis(columns=None)
    out.insert(0, "probes", counts.sum(axis=1))
    sent = out["probes"] - out["unsent"]
    out["loss"] = (1 - out["answered"] / sent).where(sent > 0)
    rtt = frame.loc[frame["outcome"] == "answered"].groupby(by, observed=True)["rtt_ns"]
    for name, column in (("rtt_p50_ms", rtt.median()), ("rtt_p99_ms", rtt.quantile(0.99)), ("rtt_max_ms", rtt.max())):
        out[name] = column / 1e6
    return out.sort_values(["loss", "probes"], ascending=False)
