"""Tells people: group, inhibit, silence, deliver. Fails open: rather twice than never."""
