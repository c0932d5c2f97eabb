"""The WebSocket endpoint `/ws` and the hub behind it."""
