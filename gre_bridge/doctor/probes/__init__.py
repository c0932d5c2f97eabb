"""The probes of `gre-bridge doctor`: one module for each dependency."""
