"""Claims work from the outbox, routes it and settles it: the relay proper."""
