"""The words every room of tgw shares. No I/O; the standard library and pydantic (for documents) only."""
