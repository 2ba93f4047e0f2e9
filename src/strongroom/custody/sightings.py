"""Sightings: what a chain's outputs are to the house, told from the many that are nobody's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, TypeAlias

import structlog

from strongroom.custody.chain import Block, Output
from strongroom.engine.command import Command
from strongroom.engine.port import ReadsRows
from strongroom.records.addresses import Address
from strongroom.records.coins import Sent
from strongroom.records.deposits import Outpoint
from strongroom.wallet.addresses import house_address, is_retired
from strongroom.wallet.catalogue import Catalogue
from strongroom.wallet.context import Context
from strongroom.wallet.deposits import Sighting, asset_of_token, is_bookable, prepare_sighting
from strongroom.wallet.epochs import epoch_of
from strongroom.wallet.foreseen import Foreseen

_MAX_REPORTED: Final = 10_000

log = structlog.get_logger("watcher")

Report: TypeAlias = Callable[[str, Output], None]
"""Told the reason and the output of what reached us and could not be booked, once each."""


def no_report(reason: str, output: Output) -> None:
    """Leave it at the log line and the count."""


class Sightings:
    """The outputs of one network; `unbooked` counts those that reached an address of ours and are booked for nobody."""

    def __init__(self, context: Context, network: int, name: str, report: Report) -> None:
        """`name` is what the network is called in the log."""
        self.unbooked = 0
        self._context = context
        self._network = network
        self._name = name
        self._report = report
        self._reported: dict[tuple[str, int], None] = {}

    def commands(self, outputs: Sequence[Output], block: Block | None) -> list[Command]:
        """Return the commands that note what is to addresses of ours, of a block or of what waits for one."""
        rows, catalogue = self._rows_of(outputs), self._context.catalogue
        found = (self._sighting(rows, catalogue, output, block) for output in outputs)
        prepared = (prepare_sighting(self._context, sighting, rows) for sighting in found if sighting)
        return [command for command in prepared if command]

    def _rows_of(self, outputs: Sequence[Output]) -> Foreseen:
        """Return what is known of outputs, looked up together: most of a block's are nobody's."""
        network = self._network
        rows = Foreseen(self._context.reads, (Address.at(network, it.address, it.tag) for it in outputs))
        ours = [it for it in outputs if rows.row(Address, network, it.address, it.tag).ours]
        rows.foresee(Sent.at(network, it.txid) for it in ours)
        rows.foresee(Outpoint.at(network, it.txid, it.index) for it in ours)
        return rows

    def _sighting(self, rows: ReadsRows, catalogue: Catalogue, output: Output, block: Block | None) -> Sighting | None:
        """Return what an output is to us; None for what we paid ourselves, and for what is nobody's, which is told."""
        address = rows.row(Address, self._network, output.address, output.tag)
        if not address.ours and output.address != house_address(rows, self._network).address:
            return None
        if rows.row(Sent, self._network, output.txid).payment:
            return None
        asset = asset_of_token(catalogue, self._network, output.asset_id)
        if not address.given_ms:
            self._tell("the address is given to nobody" if address.ours else "the tag is nobody's", output)
        if not address.given_ms and not is_retired(address, epoch_of(self._context.reads)):
            return None
        if asset is None:
            return self._tell("the token is unknown", output)
        if not is_bookable(catalogue, self._network, asset, output.amount):
            return self._tell("the amount is beyond the ledger's range", output)
        height, hash_ = (block.height, block.hash) if block else (0, "")
        place = (self._network, output.txid, output.index, output.address, output.tag)
        return Sighting(*place, asset, output.amount, height, hash_, output.coinbase)

    def _tell(self, reason: str, output: Output) -> None:
        """Count and report an output that is not booked, once."""
        key = (output.txid, output.index)
        if key in self._reported:
            return
        if len(self._reported) >= _MAX_REPORTED:
            del self._reported[next(iter(self._reported))]
        self._reported[key] = None
        self.unbooked += 1
        log.warning("output_not_booked", network=self._name, txid=output.txid, index=output.index, reason=reason)
        self._report(reason, output)
