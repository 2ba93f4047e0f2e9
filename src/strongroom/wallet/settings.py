"""Settings as commands: the first snapshot from the operator's file, and every change after it."""

from __future__ import annotations

from typing import Final

from strongroom.engine.command import Command, Decision, Guard, Stale, View
from strongroom.errors import PARAMETER_INVALID
from strongroom.records.kept import Key
from strongroom.records.settings import SETTINGS_KEY, Settings, Snapshot
from strongroom.wallet.context import Context


class ChangeSettings(Command, frozen=True):
    """Replace the snapshot of version `version` by another one."""

    version: int
    snapshot: Snapshot

    def needs(self) -> list[Key]:
        """The settings."""
        return [SETTINGS_KEY]

    def decide(self, view: View, now_ms: int) -> Decision:
        """Keep the new snapshot, if it leaves every declared identity as it is."""
        current = view.get(Settings, 0)
        if current.version != self.version:
            raise Stale
        check_identity(current.snapshot, self.snapshot)
        return Decision(rows=[Settings(0, self.version + 1, self.snapshot)])


def check_identity(before: Snapshot, after: Snapshot) -> None:
    """Raise `Refused` PARAMETER_INVALID if an asset, network or offer that was declared is missing or means another.

    What is kept is counted in an asset's scale and, on a chain, in an offer's decimals: neither may change under it.
    What is no longer wanted is switched off.
    """
    now = _identities(after)
    for declared, (name, *identity) in _identities(before).items():
        if now.get(declared) != (name, *identity):
            raise PARAMETER_INVALID(f"{declared[0]} {name} cannot change its {_FIXED[declared[0]]} once declared")


_FIXED: Final = {
    "asset": "code, kind or scale",
    "network": "code, family or extension",
    "offer": "decimals or token",
}


def _identities(snapshot: Snapshot) -> dict[tuple[str, int, int], tuple[str, object, object]]:
    """Return what is fixed of everything declared: its name, and what it means; by its kind and numbers."""
    assets = {asset.number: asset for asset in snapshot.assets}
    networks = {network.number: network for network in snapshot.networks}
    return {
        **{("asset", n, 0): (asset.code, asset.fiat, asset.scale) for n, asset in assets.items()},
        **{("network", n, 0): (network.code, network.family, network.extension) for n, network in networks.items()},
        **{
            ("offer", offer.asset, offer.network): (
                f"{assets[offer.asset].code}-{networks[offer.network].code}",
                offer.decimals,
                offer.token,
            )
            for offer in snapshot.offers
        },
    }


def prepare_settings(context: Context, guard: Guard, snapshot: Snapshot) -> ChangeSettings:
    """Return the command that replaces the settings as they are now."""
    return ChangeSettings(guard, context.reads.row(Settings, 0).version, snapshot)
