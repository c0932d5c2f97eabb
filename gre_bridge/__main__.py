"""`python -m gre_bridge`: the same as the command `gre-bridge`."""

from gre_bridge.cli.main import main

main()
