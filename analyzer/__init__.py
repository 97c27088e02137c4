"""The analyzer: closes the ledger of every probe, finds faults, names culprits, opens incidents, asks for remedies."""
