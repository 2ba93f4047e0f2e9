"""Failures that are expected: told in a line on standard error, with an exit code of their own, never a traceback."""

from __future__ import annotations

import sys
from collections.abc import Generator
from contextlib import contextmanager
from typing import Final, NoReturn

import click

NOT_DONE: Final = 1
WRONG_SETTINGS: Final = 2


def fail(message: str, code: int = NOT_DONE) -> NoReturn:
    """Print why nothing was done, and exit."""
    click.echo(f"strongroom: {message}", err=True)
    sys.exit(code)


@contextmanager
def expected_failures() -> Generator[None]:
    """Turn what may well go wrong into a line on standard error and an exit code."""
    from strongroom.admin.protocol import AdminError
    from strongroom.config.settings import ConfigError
    from strongroom.engine.port import StoreError

    try:
        yield
    except ConfigError as error:
        for problem in error.problems:
            click.echo(f"strongroom: {problem}", err=True)
        sys.exit(WRONG_SETTINGS)
    except (StoreError, AdminError) as error:
        fail(str(error))
    except OSError as error:
        fail(f"{error.filename}: {error.strerror}" if error.filename else str(error))
    except KeyboardInterrupt:
        fail("interrupted", 130)
