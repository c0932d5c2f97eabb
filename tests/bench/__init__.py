"""Measurements of the relay from its users' side: `make bench`."""
