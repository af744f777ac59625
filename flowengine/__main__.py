"""`python -m flowengine`."""

from flowengine.cli import main

main()
