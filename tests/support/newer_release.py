"""A release of tomorrow: this program, which knows one migration more for each script that it is given.

.venv/bin/python -m support.newer_release SCRIPT [SCRIPT ...] -- serve --config FILE
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from strongroom.cli.main import main
from strongroom.store.postgres import schema


def know(scripts: Sequence[Path]) -> None:
    """Know these migrations behind those of this release."""
    known = schema.migrations()
    more = [schema._read(script.read_text(), number) for number, script in enumerate(scripts, len(known) + 1)]
    schema.migrations = lambda: [*known, *more]


if __name__ == "__main__":
    cut = sys.argv.index("--")
    know([Path(name) for name in sys.argv[1:cut]])
    sys.argv[1:] = sys.argv[cut + 1 :]
    main()
