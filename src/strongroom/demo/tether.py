"""Run a program that is told to end when whoever started it does, even by a kill: tether.py PARENT SIGNAL PROGRAM ...

The system itself sends the signal. Where it cannot (it is Linux's way), the program runs without that tether.
"""

from __future__ import annotations

import ctypes
import os
import sys
from typing import Final

_PR_SET_PDEATHSIG: Final = 1


def main() -> None:
    """Take the tether on, and become the program."""
    parent, number, program = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    system = ctypes.CDLL(None)
    if hasattr(system, "prctl"):
        system.prctl(_PR_SET_PDEATHSIG, number)
    # A parent that ended before the tether was on has sent no signal.
    if os.getppid() != parent:
        sys.exit(1)
    os.execv(program, sys.argv[3:])  # noqa: S606 - no shell is wanted


if __name__ == "__main__":
    main()
