"""Entry point of the command. Signal handlers are installed before the imports, which take most of a second."""

from __future__ import annotations

import sys

from gre_bridge.daemon import signals


def main() -> None:
    """Run the command line."""
    signals.open_standard_streams()
    signals.handle_from_the_start(daemon=sys.argv[1:2] == ["run"])
    from gre_bridge.cli.app import main as command  # noqa: PLC0415 - the handlers must be installed first

    command()
