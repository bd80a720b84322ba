"""`python -m selfinstruct` is the command `selfinstruct`."""

from selfinstruct.cli import main

main()
