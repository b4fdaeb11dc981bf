"""`python -m lenspipe` is the command `lenspipe`."""

from lenspipe.cli import main

main()
