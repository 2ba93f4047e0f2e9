"""v3: the wallet's balances."""

from __future__ import annotations

from typing import Final

import msgspec

from strongroom.api.calls import Call
from strongroom.api.dialects.v3.common import paths
from strongroom.api.operations import Access, Dialect, Operation
from strongroom.api.replies import Number, encode, number
from strongroom.records.keys import Permission
from strongroom.wallet.balances import balances_of


class WalletRow(msgspec.Struct, frozen=True):
    """A balance of an asset."""

    currency: str
    total: Number
    available: Number


def answer_wallet(call: Call) -> bytes:
    """Return one row per asset, zero rows included, in the catalogue's order."""
    return call.services.wallets.body(call.owner, "v3", lambda: _wallet(call))


def _wallet(call: Call) -> bytes:
    reads, owner = call.context.reads, call.owner
    rows: list[WalletRow] = []
    assets = call.context.catalogue.snapshot.assets
    for asset, balance in zip(assets, balances_of(reads, owner, [it.number for it in assets]), strict=True):
        total, available = number(balance.total, asset.scale), number(balance.available, asset.scale)
        rows.append(WalletRow(asset.code, total, available))
    return encode(rows)


OPERATIONS: Final = [
    Operation(
        name="wallet",
        summary="Query wallet balance",
        dialect=Dialect.V3,
        method="GET",
        paths=paths("user/wallet", "v3.1"),
        access=Access.READ,
        permission=Permission.READ,
        reply=list[WalletRow],
        answer=answer_wallet,
    ),
]
