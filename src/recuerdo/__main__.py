"""`python -m recuerdo` is the command line."""

from recuerdo.cli.app import main

main()
