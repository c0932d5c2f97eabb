"""Routing: pure functions from a claimed lane to what each sink sends."""
