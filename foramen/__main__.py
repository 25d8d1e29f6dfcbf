"""`python -m foramen` is the command `foramen`."""

from foramen.cli import main

main()
