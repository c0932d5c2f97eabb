"""Measurements of the relay as its users meet it: `make bench`."""
