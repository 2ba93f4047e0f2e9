"""Settings as commands: the first snapshot from the operator's file, and every change after it."""

from __future__ import annotations

from strongroom.engine.command import Command, Decision, Guard, Stale, View
from strongroom.errors import PARAMETER_INVALID
from strongroom.records.kept import Key
from strongroom.records.settings import SETTINGS_KEY, AssetSettings, NetworkSettings, Settings, Snapshot
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
    """Raise `Refused` PARAMETER_INVALID if an asset or network that was declared is missing or means another thing."""
    for what, old, new in (
        (
            "asset",
            {a.number: _asset_identity(a) for a in before.assets},
            {a.number: _asset_identity(a) for a in after.assets},
        ),
        (
            "network",
            {n.number: _network_identity(n) for n in before.networks},
            {n.number: _network_identity(n) for n in after.networks},
        ),
    ):
        for number, identity in old.items():
            if new.get(number) != identity:
                raise PARAMETER_INVALID(f"{what} {identity[0]} cannot change its code, kind or scale once declared")


def _asset_identity(asset: AssetSettings) -> tuple[str, bool, int]:
    return asset.code, asset.fiat, asset.scale


def _network_identity(network: NetworkSettings) -> tuple[str, str, str]:
    return network.code, network.family, network.extension


def prepare_settings(context: Context, guard: Guard, snapshot: Snapshot) -> ChangeSettings:
    """Return the command that replaces the settings as they are now."""
    return ChangeSettings(guard, context.reads.row(Settings, 0).version, snapshot)
