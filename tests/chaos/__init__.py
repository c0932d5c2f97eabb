"""Breaking things under load: `python -m tests.chaos`, `python -m tests.chaos.soak`."""
