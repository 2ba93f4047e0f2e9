"""The command line `strongroom`; heavy modules are imported by the commands that need them, so it starts at once."""

from __future__ import annotations

from strongroom.cli import archivist, auditor, cashier, custodian, operator
from strongroom.cli.root import root

COMMANDS = (operator, cashier, auditor, archivist, custodian)
"""The modules whose import gives the root its commands."""


def main() -> None:
    """Run the command line and exit: 0 done, 1 not done, 2 wrong usage or settings."""
    root(prog_name="strongroom")


if __name__ == "__main__":
    main()
