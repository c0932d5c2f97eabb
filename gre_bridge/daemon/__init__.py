"""`gre-bridge run`: a supervisor and the two processes that it starts, the relay and the API."""
