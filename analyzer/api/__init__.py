"""The query API: incidents, nodes, VIPs, probes and their journeys, the ledger, decisions, silences."""
