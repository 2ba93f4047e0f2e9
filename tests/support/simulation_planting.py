"""How a known mistake is planted into a server, under the name of the function that makes it."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Final
from unittest import mock

MISTAKES: Final[dict[str, Callable[[], Any]]] = {}


def mistake(make: Callable[[], Iterator[None]]) -> Callable[[], Iterator[None]]:
    """Keep a mistake under the name of its function."""
    MISTAKES[make.__name__.strip("_").replace("_", "-")] = contextmanager(make)
    return make


@contextmanager
def replaced(*changes: tuple[Any, str, Any]) -> Generator[None]:
    """Put other things in the place of attributes for a while."""
    with ExitStack() as stack:
        for target, name, value in changes:
            stack.enter_context(mock.patch.object(target, name, value))
        yield
