"""The control plane: one orchestrator for the fleet, one operator per cluster, one durable store."""
