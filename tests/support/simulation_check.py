"""What must be true in the end, worked out from what was asked, answered, said and paid alone."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Any, Final, NamedTuple

from strongroom.application import Application
from strongroom.custody.chain import Fate
from strongroom.ledger.accounts import CUSTOMER_PURPOSES, Purpose, house, unpack
from strongroom.records.addresses import Address, Placed
from strongroom.records.chains import Holding
from strongroom.records.coins import Pot
from strongroom.records.deposits import Deposit, DepositState, Outpoint
from strongroom.records.history import Line, LineType
from strongroom.records.withdrawals import (
    OPEN_WITHDRAWALS,
    Payment,
    PaymentPurpose,
    PaymentState,
    Withdrawal,
    WithdrawalState,
)
from strongroom.wallet.epochs import waits
from strongroom.wallet.verification import verify
from support.simulation_coin_check import check_coins
from support.simulation_deeds import NOT_USED_UP, Deed, Faucet, Mark, Record, address_of
from support.simulation_house import (
    ASSETS,
    BTC,
    CHAIN_UNIT,
    CODES,
    COLD_FEE,
    DEPOSIT_FEE,
    ETH,
    NETWORKS,
    NUMBERS,
    TOKENS,
    USDT,
    Template,
)
from support.simulation_life import demand

_ALL: Final = 100_000
_ENDS: Final = {"reject": WithdrawalState.REJECTED, "cancel": WithdrawalState.CANCELLED}
_RELEASED: Final = {
    WithdrawalState.REJECTED,
    WithdrawalState.CANCELLED,
    WithdrawalState.EXPIRED,
    WithdrawalState.FAILED,
}


class Paid(NamedTuple):
    """An output of the house's own payments on the best chain."""

    network: str
    address: str
    token: str
    amount: int


class Checker:
    """Holds a house at rest against the record of everything that was done to it."""

    def __init__(self, application: Application, template: Template, record: Record) -> None:
        self._store = application.store
        self._treasury = application.treasury
        self._node: Any = application.treasury.node
        self._template = template
        self._record = record
        self._uids = {name: member.uid for name, member in template.members.items()}
        self._names = {uid: name for name, uid in self._uids.items()}
        self._lines: dict[Mark, list[Line]] = defaultdict(list)
        self._expected: Counter[tuple[int, int]] = Counter()
        self._house: Counter[tuple[int, int]] = Counter()
        self._stock: Counter[int] = Counter()

    async def check(self) -> list[Deed]:
        """Return the deeds that happened. Raises `Failure` for whatever must not be."""
        report = verify(self._store)
        demand(report.is_whole, f"the books are not whole: {report.findings}")
        self._read_lines()
        happened = [deed for deed in self._record.deeds if self._check_deed(deed)]
        for paid in self._record.faucets:
            self._check_faucet(paid, (await self._node.chain(paid.network).transaction(paid.txid)).fate)
        self._check_all_accounted_for()
        paid = await self._paid()
        self._check_moves(paid)
        await self._check_thawed()
        self._check_withdrawals(happened, +paid)
        self._check_conversions(happened)
        await self._check_reconciled()
        self._check_balances()
        await self._check_holdings()
        self._check_addresses()
        return happened

    # -- history

    def _read_lines(self) -> None:
        """Read the history of everybody since the beginning."""
        refs: set[int] = set()
        for item in self._store.items(1, _ALL):
            for line in item.lines:
                demand(line.ref not in refs, f"order {line.ref} is listed twice")
                refs.add(line.ref)
                if item.number > self._template.items:
                    self._lines[_mark_of(line)].append(line)
        lost = set(self._record.seen_refs) - refs
        demand(not lost, f"history lines that were seen are gone: {sorted(lost)}")

    def _check_deed(self, deed: Deed) -> bool:
        """Say whether a deed happened; it is there once and whole, or not at all, and every answer agrees."""
        found = [self._lines.pop(mark, []) for mark in deed.marks(self._uids)]
        times = {len(lines) for lines in found}
        demand(len(times) == 1, f"half done: {deed.told()}")
        demand(times <= {0, 1}, f"done {max(times)} times: {deed.told()}")
        happened = times == {1}
        done = [answer for answer in deed.answers if answer.status == 200]
        demand(happened or not done, f"answered and lost: {deed.told()}")
        # What was refused before a backup and paid after it is the customer's again when the operator names them.
        forgotten = deed.barred and deed.kind == "withdraw"
        demand(bool(done) or deed.in_doubt or forgotten or not happened, f"refused and done: {deed.told()}")
        demand(len({answer.body for answer in done}) <= 1, f"two answers: {deed.told()}")
        demand(len([answer for answer in done if not answer.repeated]) <= 1, f"carried out twice: {deed.told()}")
        self._check_signatures(deed)
        self._check_frozen(deed)
        if happened:
            self._tell(deed)
        return happened

    def _check_signatures(self, deed: Deed) -> None:
        """Check that no signature that was used up by an answer was good for another change afterwards."""
        used: dict[Any, int] = {}
        for request, answer, _, heard in deed.attempts:
            if answer is not None and answer.status not in NOT_USED_UP:
                used[request] = min(heard, used.get(request, heard))
        for request, answer, sent, _ in deed.attempts:
            if answer is not None and answer.status not in NOT_USED_UP and not answer.repeated:
                demand(sent < used[request], f"a used signature was good again: {deed.told()}")

    def _check_frozen(self, deed: Deed) -> None:
        """Check that nothing was done for a customer between a freeze that was confirmed and the next word of it."""
        markings = [it for it in self._record.markings if it.user == deed.user]
        for place, marking in enumerate(markings):
            if marking.frozen and marking.heard:
                until = markings[place + 1].sent if place + 1 < len(markings) else self._record.ticks
                for _, answer, sent, heard in deed.attempts:
                    done = answer is not None and answer.status == 200 and not answer.repeated
                    meanwhile = marking.heard < sent and heard < until
                    demand(not (done and meanwhile), f"done for somebody who is frozen: {deed.told()}")

    def _tell(self, deed: Deed) -> None:
        """Change the expected balances by a deed that happened; withdrawals' by what became of them."""
        user = self._uids[deed.user]
        if deed.kind in {"transfer", "convert"}:
            self._expected[user, deed.asset] -= deed.amount
        if deed.kind == "transfer":
            self._expected[self._uids[deed.receiver], deed.asset] += deed.amount

    def _check_conversions(self, happened: Iterable[Deed]) -> None:
        """Check what conversions took from the inventory and the spread that stayed: together nothing is lost."""
        converted: Counter[int] = Counter()
        for deed in happened:
            if deed.kind == "convert":
                arrived = self._arrived[deed.amount, deed.target]
                self._expected[self._uids[deed.user], deed.target] += arrived
                converted[deed.asset] += deed.amount
                converted[deed.target] -= arrived
        balances = self._balances()
        for asset in ASSETS:
            kept = sum(
                balances.get(account, 0) - self._template.balances.get(account, 0)
                for account in (house(purpose, asset).pack() for purpose in (Purpose.INVENTORY, Purpose.SPREAD))
            )
            should = converted[asset] + self._stock[asset]
            demand(kept == should, f"conversions of {asset} and what came back leave {kept}, not {should}")

    def _check_faucet(self, paid: Faucet, fate: Fate) -> None:
        """Check that what the chain holds was credited once, and what it does not hold was not."""
        mark = Mark(self._uids[paid.user], paid.asset, LineType.DEPOSIT, paid.amount, arrives=True)
        lines = self._lines.pop(mark, [])
        demand(len(lines) <= 1, f"a deposit is listed {len(lines)} times: {paid}")
        if fate is not Fate.MINED:
            return
        if paid.address in self._record.lost_addresses:
            self._check_withheld(paid, lines)
            return
        demand(len(lines) == 1, f"a deposit was overlooked: {paid}")
        self._expected[self._uids[paid.user], paid.asset] += paid.net
        if paid.net:
            self._house[Purpose.FEES, paid.asset] += DEPOSIT_FEE[paid.asset]
        else:
            self._house[Purpose.SUSPENSE, paid.asset] += paid.amount

    def _check_withheld(self, paid: Faucet, lines: list[Line]) -> None:
        """Check what came to an address that a restored house did not know it had given: nobody's, or as it was said.

        Once it is said whose it is, the address is that customer's, and what comes later is a deposit like any other.
        """
        ref = self._store.row(Outpoint, NUMBERS[paid.network], paid.txid, 0).ref
        deposit = self._store.row(Deposit, ref)
        demand(ref != 0 and deposit.amount == paid.amount, f"a deposit was overlooked: {paid}")
        demand(deposit.owner in (0, self._uids[paid.user]), f"somebody else was credited: {paid}")
        demand(len(lines) == (deposit.owner != 0), f"a deposit is listed {len(lines)} times: {paid}")
        if deposit.state == DepositState.CREDITED:
            demand(deposit.net in (paid.amount, paid.net), f"a deposit was credited with {deposit.net}: {paid}")
            self._expected[deposit.owner, paid.asset] += deposit.net
            self._house[Purpose.FEES, paid.asset] += paid.amount - deposit.net
        else:
            held = (DepositState.WITHHELD, DepositState.TOO_SMALL)
            demand(deposit.state in held, f"a deposit is neither credited nor withheld: {paid}")
            self._house[Purpose.SUSPENSE, paid.asset] += paid.amount

    async def _check_reconciled(self) -> None:
        """Check that the house itself finds that books and chains agree."""
        unbooked: Counter[str] = Counter()
        for came in self._record.thawed.values():
            if not any(back[:2] == (came.asset, came.units) for back in self._returns()):
                unbooked[CODES[came.asset]] += came.units + COLD_FEE[came.asset]
        for found in await self._treasury.reconcile():
            differs = unbooked[found.asset] if found.network == "cold" else 0
            demand(found.unexplained_units == differs, f"books and chain differ: {found}")
        for network in NUMBERS.values():
            demand(not waits(self._store, network), f"network {network} waits still")

    def _check_all_accounted_for(self) -> None:
        """Check that the history has nothing that nobody asked for but the arrivals inside the house."""
        arrivals = {
            Mark(self._uids[deed.receiver], deed.asset, LineType.DEPOSIT, deed.credited, arrives=True): deed
            for deed in self._record.deeds
            if deed.kind == "withdraw" and deed.receiver
        }
        named = {
            Mark(self._uids[deed.user], deed.asset, LineType.WITHDRAW, deed.credited, arrives=False)
            for deed in self._record.lost
        }
        for mark, lines in self._lines.items():
            demand(mark in arrivals or mark in named, f"history has what nobody asked for: {lines}")
            demand(len(lines) == 1, f"arrived {len(lines)} times: {lines}")

    # -- withdrawals

    async def _paid(self) -> Counter[Paid]:
        """Return what the house paid on the best chains."""
        paid: Counter[Paid] = Counter()
        for network in sorted(NUMBERS):
            chain = self._node.chain(network)
            for height in range((await chain.tip()).height + 1):
                block = (await chain.block_at(height)).hash
                outputs = chain.paid_in(block) if chain.spends_coins else await chain.outputs_in(block)
                ours = [it for it in outputs if it.ours]
                paid.update(Paid(network, it.address, it.asset_id, it.amount) for it in ours)
        return paid

    def _check_withdrawals(self, happened: Iterable[Deed], paid: Counter[Paid]) -> None:
        """Check that each withdrawal is one row, and was paid once if it is settled, and not at all if it failed."""
        demand(all(count == 1 for count in paid.values()), f"paid twice: {paid}")
        rows: dict[tuple[int, int, int], Withdrawal] = {}
        for row in self._store.rows(Withdrawal, {}, _ALL):
            demand((row.owner, row.asset, row.asked) not in rows, f"two withdrawals of one request: {row}")
            rows[row.owner, row.asset, row.asked] = row
        for deed in happened:
            if deed.kind == "withdraw":
                row = rows.pop((self._uids[deed.user], deed.asset, deed.amount), None)
                demand(row is not None, f"a withdrawal without its row: {deed.told()}")
                self._check_withdrawal(deed, row, paid)
        for deed in self._record.lost:
            if deed.kind == "withdraw" and not deed.receiver:
                self._check_lost(deed, rows, paid)
        demand(not rows, f"withdrawals that nobody asked for: {list(rows.values())}")
        demand(not +paid, f"the chain paid what nobody asked for, or twice: {+paid}")

    def _check_lost(self, deed: Deed, rows: dict[tuple[int, int, int], Withdrawal], paid: Counter[Paid]) -> None:
        """Check what a restored house made of a withdrawal that its backup did not know, if the chain has paid it."""
        user = self._uids[deed.user]
        found = [rows.pop((owner, deed.asset, deed.credited), None) for owner in (0, user)]
        row = found[0] or found[1]
        if row is None:
            return
        once = paid.pop(_output_of(deed), 0)
        demand(row.address == deed.address and None in found, f"found twice: {row}")
        demand(once == (row.state == WithdrawalState.SETTLED), f"paid {once} times: {row}")
        demand(bool(once) or row.state == WithdrawalState.FAILED, f"left open: {row}")
        if once and row.owner:
            self._expected[user, deed.asset] -= deed.credited
        elif once:
            self._house[Purpose.EQUITY, deed.asset] -= deed.credited

    def _check_withdrawal(self, deed: Deed, row: Any, paid: Counter[Paid]) -> None:
        state, user = WithdrawalState(row.state), self._uids[deed.user]
        if not deed.receiver:
            demand(state in _RELEASED | {WithdrawalState.SETTLED, WithdrawalState.AWAITING}, f"left open: {row}")
            once = paid.pop(_output_of(deed), 0)
            demand(once == (state == WithdrawalState.SETTLED), f"paid {once} times: {row}")
        self._check_verdicts(row)
        mark = Mark(self._uids.get(deed.receiver, 0), deed.asset, LineType.DEPOSIT, deed.credited, arrives=True)
        demand((mark in self._lines) == (deed.receiver != "" and state == WithdrawalState.SETTLED), f"arrival: {row}")
        if state in _RELEASED:
            return
        # One that the backup did not have, and that was named for its customer since, has cost no fee.
        fee = 0 if deed.barred and not row.fee else deed.fee
        self._expected[user, deed.asset] -= deed.credited + fee
        if state == WithdrawalState.SETTLED:
            self._house[Purpose.FEES, deed.asset] += fee
            if deed.receiver:
                self._expected[self._uids[deed.receiver], deed.asset] += deed.credited

    def _check_verdicts(self, row: Withdrawal) -> None:
        """Check that what the operator was told is done stands, and that nothing was done that nobody said."""
        said = [it for it in self._record.verdicts if it.ref == row.ref]
        final = [it.word for it in said if it.known and it.word in _ENDS]
        demand(len(final) <= 1, f"the operator said both {final}: {row}")
        if final:
            demand(row.state == _ENDS[final[0]], f"the operator said {final[0]}: {row}")
        unsaid = {word for word in _ENDS if not any(it.word == word for it in said)}
        demand(row.state not in {_ENDS[word] for word in unsaid}, f"nobody said so: {row}")

    # -- balances

    def _balances(self) -> dict[int, int]:
        return {account: after for account, after, _ in self._store.balances()}

    def _check_balances(self) -> None:
        """Check everybody's balances, the sums per asset, and the house's own accounts."""
        balances, sums = self._balances(), Counter[int]()
        owed, held = Counter[tuple[int, int]](), Counter[tuple[int, int]]()
        available = Counter[tuple[int, int]]()
        for packed, after in balances.items():
            account = unpack(packed)
            sums[account.asset] += after
            demand(after >= 0 or account.purpose not in CUSTOMER_PURPOSES, f"below zero: {account} {after}")
            if account.owner in self._names and account.purpose < Purpose.OMNIBUS:
                {Purpose.OWED: owed, Purpose.HELD: held}.get(Purpose(account.purpose), available)[
                    account.owner, account.asset
                ] += after
        demand(not any(sums.values()), f"assets do not sum to zero: {sums}")
        open_: Counter[tuple[int, int]] = Counter()
        for row in self._store.rows(Withdrawal, {}, _ALL):
            if row.state in OPEN_WITHDRAWALS:
                open_[row.owner, row.asset] += row.held
        for member in self._template.members.values():
            for asset in ASSETS:
                key = member.uid, asset
                opening = sum(
                    self._template.balances.get(packed, 0) for packed in self._accounts(member.uid, asset, balances)
                )
                has, should = available[key] + owed[key], opening + self._expected[key]
                demand(held[key] == open_[key], f"{member.name} holds {held[key]} of {asset}, not {open_[key]}")
                demand(not (owed[key] and available[key]), f"{member.name} owes {asset} and can spend some")
                demand(has == should, f"{member.name} has {has} of {asset}, not {should}")
        for (purpose, asset), units in self._house.items():
            account = house(Purpose(purpose), asset).pack()
            has, should = balances.get(account, 0), self._template.balances.get(account, 0) + units
            demand(has == should, f"the house's {Purpose(purpose).name} of {asset} has {has}, not {should}")

    @staticmethod
    def _accounts(uid: int, asset: int, balances: Iterable[int]) -> list[int]:
        return [packed for packed in balances if (unpack(packed).owner, unpack(packed).asset) == (uid, asset)]

    async def _check_holdings(self) -> None:
        """Check that the books' coins are those that the chains have, and lie where the chains have them."""
        for asset in (BTC, ETH, USDT):
            network = NETWORKS[asset]
            books = int(self._store.row(Holding, NUMBERS[network], asset).chain_units)
            if self._node.chain(network).spends_coins:
                chain = check_coins(self._store, self._node.chain(network), NUMBERS[network])
            elif self._node.chain(network).needs_sweeps:
                chain = await self._held(network, asset)
            else:
                chain = await self._node.chain(network).balance(TOKENS[asset])
            demand(books == chain, f"the books have {books} of {asset} on {network}, the chain {chain}")

    async def _held(self, network: str, asset: int) -> int:
        """Return what lies on all addresses of a network, once each is what its pot says."""
        places = [place.position for place in self._store.rows(Placed, {"network": NUMBERS[network]}, _ALL)]
        held = await self._node.chain(network).held(places, TOKENS[asset])
        for position, units in zip(places, held, strict=True):
            pot = int(self._store.row(Pot, NUMBERS[network], position, asset).chain_units)
            demand(position == 0 or pot == units, f"{position} of {network} has {units} of {asset}, its pot {pot}")
        return sum(held)

    # -- moves of the house's own money

    def _check_moves(self, paid: Counter[Paid]) -> None:
        """Check that each move that is booked is on the chain once, and what has gone to the cold address."""
        for row in self._store.rows(Payment, {"state": PaymentState.FINAL}, _ALL):
            if row.purpose in (PaymentPurpose.WITHDRAWALS, PaymentPurpose.CONSOLIDATION):
                continue
            code = next(code for code, number in NUMBERS.items() if number == row.network)
            output = Paid(code, row.address, TOKENS[row.asset], int(row.units))
            demand(paid[output] > 0, f"booked and not on the chain: {row}")
            paid[output] -= 1
            if row.purpose == PaymentPurpose.COLD:
                self._house[Purpose.COLD, row.asset] -= int(row.units) * CHAIN_UNIT[row.asset]

    def _returns(self) -> Counter[tuple[int, int, int]]:
        """Return what the journal has booked as come back from the cold address: the asset, its units and the fee."""
        found: Counter[tuple[int, int, int]] = Counter()
        for item in self._store.items(self._template.items + 1, _ALL):
            posted = {unpack(it.account): it.amount for it in item.postings}
            for asset in ASSETS:
                if (cold := posted.get(house(Purpose.COLD, asset), 0)) and house(Purpose.INVENTORY, asset) in posted:
                    units = -posted[house(Purpose.INVENTORY, asset)]
                    found[asset, units, cold - units] += 1
        return found

    async def _check_thawed(self) -> None:
        """Check what came back from the cold address, and that what was booked of it was booked once."""
        for txid, came in self._record.thawed.items():
            if (await self._node.chain(came.network).transaction(txid)).fate is Fate.MINED:
                self._stock[came.asset] += came.units
        booked = self._returns()
        for back in self._record.returns:
            times = booked.pop((back.asset, back.units, back.fee), 0)
            demand(times == 1 or not (back.known and back.units), f"booked {times} times: {back}")
            demand(times <= 1, f"booked {times} times: {back}")
            self._house[Purpose.COLD, back.asset] += times * (back.units + back.fee)
            self._stock[back.asset] -= times * back.units
        demand(not booked, f"came back, and nobody said so: {booked}")

    def _check_addresses(self) -> None:
        """Check that an address that was given stays its owner's."""
        given: dict[str, str] = {}
        for deed in self._record.addresses:
            done = [answer for answer in deed.answers if answer.status == 200]
            demand(len({answer.body for answer in done}) <= 1 or deed.kind != "give", "two addresses for one request")
            if deed.kind == "delete" and deed.done:
                row = self._store.row(Address, NUMBERS[NETWORKS[deed.asset]], deed.address, "")
                demand(row.deleted, f"{deed.address} was given up and is still there")
            if deed.kind == "give" and deed.done:
                address = address_of(deed)
                row = self._store.row(Address, NUMBERS[NETWORKS[deed.asset]], address, "")
                demand(address not in self._record.lost_addresses, f"{address} was given before the restore")
                demand(row.owner == self._uids[deed.user], f"{address} was given to {deed.user} and is {row.owner}'s")
                demand(given.setdefault(address, deed.user) == deed.user, f"{address} was given twice")

    @property
    def _arrived(self) -> dict[tuple[int, int], int]:
        """What conversions gave, by what was given for it and the asset."""
        if not hasattr(self, "_conversions"):
            self._conversions = {
                (line.other_amount, line.asset): line.amount
                for item in self._store.items(self._template.items + 1, _ALL)
                for line in item.lines
                if line.type == LineType.CONVERT and line.net > 0
            }
        return self._conversions


def _output_of(deed: Deed) -> Paid:
    """Return what the chain has if it has paid a withdrawal."""
    amount = deed.credited // CHAIN_UNIT[deed.asset]
    return Paid(NETWORKS[deed.asset], deed.address, TOKENS[deed.asset], amount)


def _mark_of(line: Line) -> Mark:
    """Return what a history line is known by; a conversion's arrival by what was given for it."""
    if line.type == LineType.CONVERT:
        return Mark(line.owner, line.asset, line.type, line.amount if line.net < 0 else line.other_amount, line.net > 0)
    arrives = line.net > 0 or line.type == LineType.DEPOSIT
    return Mark(line.owner, line.asset, line.type, line.amount, arrives)
