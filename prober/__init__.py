"""The independent witness: coloured half-open probes to every VIP, reset at once, and a record of what came back."""
