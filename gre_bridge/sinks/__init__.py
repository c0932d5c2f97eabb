"""Where events go: one module for each outside service, behind the protocol in base.py."""
