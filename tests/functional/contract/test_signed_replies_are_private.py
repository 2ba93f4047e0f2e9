"""Replies to signed requests are for nobody else, also where the request never came to its operation."""

from __future__ import annotations

import pytest

from support.client import MARKETS, V1, V3, ApiClient

LARGE = b"x" * 70_000


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", V3 + "user/wallet/transfer", LARGE, 413),
        ("GET", V1 + "assets", LARGE, 413),
        ("PUT", V3 + "user/wallet", b"", 405),
        ("GET", V3 + "user/nothing", b"", 404),
    ],
)
def test_a_signed_request_is_never_stored_whatever_its_reply(
    alice: ApiClient, method: str, path: str, body: bytes, status: int
) -> None:
    """Too large a body, another method and an unknown path are answered before anything is verified, and not kept."""
    reply = alice.send(method, path, body)
    assert (reply.status_code, reply.headers.get("cache-control")) == (status, "no-store")


@pytest.mark.parametrize("path", [MARKETS, V3 + "time"])
def test_a_path_that_ignores_signatures_says_nothing_of_storing(alice: ApiClient, path: str) -> None:
    """Where authentication headers are ignored the reply is the same for all."""
    assert "cache-control" not in alice.get(path).headers
