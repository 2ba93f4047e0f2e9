"""What `/openapi.json` promises of parameters that may be left out: the defaults that the contract names."""

from __future__ import annotations

from typing import Any

import pytest

from support.client import V1, ApiClient

V3 = "/api/v3.2/"


@pytest.mark.parametrize(
    ("method", "path", "defaults"),
    [
        ("get", V3 + "user/wallet_history", {"count": 50, "useNewSymbolNaming": False}),
        ("get", V3 + "subaccount/wallet/history", {"page": 1, "pageSize": 10}),
        ("post", V3 + "subaccount/wallet/history", {"page": 1, "pageSize": 10}),
        ("post", V3 + "user/wallet/withdraw", {"includeWithdrawFee": True}),
        ("post", V3 + "user/wallet/transfer", {"useNewSymbolNaming": False}),
        ("get", V1 + "user/walletHistory", {"walletType": "SPOT", "pageSize": 50, "page": 1}),
        ("post", V1 + "user/crypto/withdraw", {"amountIncludeFee": True}),
        ("get", V1 + "assets/exchangeRate", {}),
    ],
)
def test_the_document_names_every_default(
    nobody: ApiClient, method: str, path: str, defaults: dict[str, object]
) -> None:
    """A client that is generated from the document knows what is meant by a parameter that is not sent."""
    operation = nobody.get("/openapi.json").json()["paths"][path][method]
    schemas: dict[str, Any] = {
        one["name"]: one.get("schema", {}) for one in operation.get("parameters", ()) if "name" in one
    }
    if "requestBody" in operation:
        schemas |= operation["requestBody"]["content"]["application/json"]["schema"]["properties"]
    assert {name: schema["default"] for name, schema in schemas.items() if "default" in schema} == defaults
