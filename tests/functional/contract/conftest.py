"""What the contract's tests share: one house a module, and clients of its users."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.client import ApiClient
from support.serving import House, opened


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A house without rate limits, with alice, bob and alice-sub1."""
    with opened(tmp_path_factory.mktemp("house")) as house:
        yield house


@pytest.fixture
def alice(house: House) -> ApiClient:
    """Alice's client, with all permissions."""
    return house.client("alice")


@pytest.fixture
def bob(house: House) -> ApiClient:
    """Bob's client, with all permissions."""
    return house.client("bob")


@pytest.fixture
def nobody(house: House) -> ApiClient:
    """A client that signs nothing."""
    return house.client()
