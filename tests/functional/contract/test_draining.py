"""The last replies of a server that is told to stop, on connections that clients keep open."""

from __future__ import annotations

from collections.abc import Iterator
from http.client import HTTPConnection

import pytest

from support.serving import House


@pytest.fixture
def draining(house: House) -> Iterator[House]:
    """A house that drains while the test lasts."""
    house.application.api.draining = True
    yield house
    house.application.api.draining = False


def test_a_draining_server_ends_kept_connections_with_its_answer(draining: House) -> None:
    """A kept connection is answered and closed at once, so that the next request cannot be cut off unanswered."""
    connection = HTTPConnection(draining.url.removeprefix("http://"), timeout=10)
    connection.request("GET", "/api/v3.2/time")
    reply = connection.getresponse()
    assert (reply.status, reply.getheader("retry-after"), reply.getheader("connection")) == (503, "1", "close")
    assert reply.read()
    assert connection.sock is None
