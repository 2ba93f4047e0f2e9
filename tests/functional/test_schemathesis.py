"""The OpenAPI document against the running server: whatever a client may send by it, the answer is one it describes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, settings
from requests.auth import AuthBase
from schemathesis.checks import CheckFunction, not_a_server_error
from schemathesis.specs.openapi import checks as openapi_checks

from strongroom.api import openapi
from strongroom.api.dialects import OPERATIONS
from support.background import Background, in_background
from support.client import Nonces, sign, signed_path

CHECKS: list[CheckFunction] = [
    not_a_server_error,
    openapi_checks.status_code_conformance,
    openapi_checks.content_type_conformance,
    openapi_checks.response_headers_conformance,
    openapi_checks.response_schema_conformance,
]
SIGNED_EXAMPLES = 5
UNSIGNED_EXAMPLES = 2
SLOW_TO_MAKE = [HealthCheck.too_slow, HealthCheck.filter_too_much]


def described(*, security: bool) -> Any:
    """Return the document as schemathesis reads it."""
    schema = schemathesis.openapi.from_dict(openapi.document(OPERATIONS))
    schema.config.generation.update(with_security_parameters=security)
    return schema


SIGNED = described(security=False)
UNSIGNED = described(security=True)


class Signing(AuthBase):
    """Signs each request when its bytes are final, as every client of this API does."""

    def __init__(self, key: str, secret: str) -> None:
        self._key = key
        self._secret = secret
        self._nonces = Nonces()

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        """Add the three headers."""
        body = request.body or b""
        body = body if isinstance(body, bytes) else str(body).encode()
        path = signed_path(request.path_url.partition("?")[0])
        nonce = self._nonces.fresh()
        signature = sign(self._secret, path, nonce, body)
        request.headers.update({"request-api": self._key, "request-nonce": nonce, "request-sign": signature})
        if "Idempotency-Key" in request.headers:
            # A key of its own for each intention, or most answers would be about that header.
            request.headers["Idempotency-Key"] = f"{request.headers['Idempotency-Key']}{nonce}"[-255:]
        return request


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Background]:
    """A running server."""
    with in_background(tmp_path_factory.mktemp("house")) as background:
        yield background


@pytest.fixture(scope="module")
def session() -> Iterator[requests.Session]:
    """Connections that are kept."""
    with requests.Session() as session:
        session.trust_env = False
        yield session


@SIGNED.parametrize()
@settings(max_examples=SIGNED_EXAMPLES, suppress_health_check=SLOW_TO_MAKE)
def test_signed_requests_get_answers_that_are_described(
    house: Background, session: requests.Session, case: schemathesis.Case
) -> None:
    """Validly signed requests of any content meet no error of ours, no undescribed status and no undescribed body."""
    auth = Signing(house.alice.key, house.alice.secret)
    case.call_and_validate(base_url=house.url, session=session, checks=CHECKS, auth=auth)


@UNSIGNED.parametrize()
@settings(max_examples=UNSIGNED_EXAMPLES, suppress_health_check=SLOW_TO_MAKE)
def test_unsigned_requests_get_answers_that_are_described(
    house: Background, session: requests.Session, case: schemathesis.Case
) -> None:
    """Requests with no valid signature are answered as described too."""
    case.call_and_validate(base_url=house.url, session=session, checks=CHECKS)
