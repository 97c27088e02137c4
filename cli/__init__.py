"""The `tgw` command."""
