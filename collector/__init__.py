"""Tails the taps, makes records safe on disk, ships them to ClickHouse once, and knows what was lost."""
