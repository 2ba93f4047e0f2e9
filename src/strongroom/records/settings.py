"""Settings: one immutable, versioned snapshot of assets, networks, fees, minima and switches, changed by commands.

Identity (numbers, codes, scales) is fixed once an asset or network is declared; everything else may change.
"""

from __future__ import annotations

import msgspec

from strongroom.money import FeeFormula
from strongroom.records.kept import Kept


class AssetSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An asset: `scale` is its ledger decimals; `actions` what it is offered for: CONVERT, WITHDRAW, SEND."""

    number: int
    code: str
    name: str
    fiat: bool
    scale: int = 8
    enabled: bool = True
    actions: tuple[str, ...] = ("CONVERT", "WITHDRAW", "SEND")


class NetworkSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A network: id (`ERC20`), short name (`Ethereum`), display name (`Ethereum (ERC20)`), and its chain's family.

    `extension` is the name of the address extension (`tag`), or empty. `fee_asset` is the number of the asset in which
    the chain takes its own fees.
    """

    number: int
    code: str
    short_name: str
    name: str
    family: str
    confirmations: int
    extension: str = ""
    fee_asset: int = 0


class OfferSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An asset on a network: `token` is the chain's name for it, `decimals` the chain's. Amounts in ledger units."""

    asset: int
    network: int
    decimals: int
    token: str = ""
    default: bool = False
    deposits: bool = True
    withdrawals: bool = True
    deposit_minimum: int = 0
    deposit_fee: FeeFormula = FeeFormula()
    withdraw_minimum: int = 0
    withdraw_fee: FeeFormula = FeeFormula()
    approve_above: int = 0
    daily_limit: int = 0


class Snapshot(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All settings that decisions depend on."""

    assets: tuple[AssetSettings, ...] = ()
    networks: tuple[NetworkSettings, ...] = ()
    offers: tuple[OfferSettings, ...] = ()
    approval_expires_ms: int = 3 * 86_400_000


class Settings(Kept, frozen=True, gc=False):
    """The one settings row (`id` 0) and its version, counted from 1."""

    id: int
    version: int = 0
    snapshot: Snapshot = Snapshot()


SETTINGS_KEY = (Settings, 0)
