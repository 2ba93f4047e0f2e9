"""A seeded world around a server on an EVM node: strangers pay, customers withdraw, miners disagree, the server dies.

Afterwards the chain itself is the judge: its blocks are read from the first one on, and what they hold must be what the
books say. Two promises bound the world, as confirmations do in the real one: a payment that was ever deeper than
`DEEPEST` blocks is not spent elsewhere, and no branch that wins leaves out more.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import suppress
from decimal import Decimal
from random import Random
from typing import Any, Final, NamedTuple

from eth_account import Account

from strongroom.custody.formats import EVM
from strongroom.custody.networks.evm_reading import TRANSFER_TOPIC
from strongroom.custody.rpc import RpcError
from strongroom.engine.command import NOBODY
from strongroom.ledger.accounts import owed
from strongroom.records.deposits import Deposit, DepositState
from strongroom.records.heads import Head
from strongroom.records.withdrawals import PaymentState, Withdrawal, WithdrawalState
from strongroom.wallet.approvals import prepare_approval
from strongroom.wallet.context import perform_own
from strongroom.wallet.payments import OPEN_PAYMENTS
from support.evm import call_data
from support.evm_house import ETH, ETHER, USDT, EvmHouse
from support.evm_process import EvmProcess
from support.nodes import Anvil, wait_until
from support.server import Member

UNITS: Final = 10**8
CONFIRMATIONS: Final = 2
LEAST: Final = 100_000
"""Nobody pays or withdraws less, in the ledger's units."""

DEEPEST: Final = 6
REST_S: Final = 60
"""The longest that the world may take to come to rest, in seconds."""

CHAIN_UNITS: Final = {"ETH": 10**10, "USDT": 1}
"""What a unit of the ledger, or for the token a hundred of them, is in the chain's."""

NUMBERS: Final = {"ETH": ETH, "USDT": USDT}
REFUSES: Final = "0x5f5ffd"
"""A contract that reverts whatever it is asked."""

STRANGERS: Final = 3
_REFUSED: Final = (51523, 3508)
_PHRASE: Final = "test " * 11 + "junk"
_GWEI: Final = 10**9
_LOOKS: Final = 50
_LOOK_S: Final = 0.02


class Sent(NamedTuple):
    """A stranger's transaction, which keeps its id in whichever block it is."""

    txid: str
    raw: str
    stranger: int
    nonce: int


class EvmChaos:
    """One run: `steps` happen in an order that its seed alone decides; `done` counts what did happen."""

    def __init__(self, anvil: Anvil, token: str, server: EvmProcess, chance: Random) -> None:
        Account.enable_unaudited_hdwallet_features()
        paths = [f"m/44'/60'/0'/0/{nth}" for nth in range(1, STRANGERS + 1)]
        self._keys = [Account.from_mnemonic(_PHRASE, account_path=path) for path in paths]
        self._sent: list[list[Sent]] = [[] for _ in self._keys]
        self._fresh: list[Sent] = []
        self._asked = 0
        self.anvil = anvil
        self.token = token
        self.server = server
        self.chance = chance
        self.done: Counter[str] = Counter()
        self.addresses: dict[str, Member] = {}
        self._refusing: set[str] = set()
        self._left: dict[str, str] = {}
        self.accepted: dict[str, tuple[str, str, int]] = {}
        """Asset, address and units of each withdrawal that was accepted; every address is a new one."""

    def add(self, member: Member, addresses: list[str]) -> None:
        """Let a customer with deposit addresses take part."""
        self.addresses |= dict.fromkeys(addresses, member)

    async def run(self, steps: int) -> None:
        """Let so many things happen."""
        acts = [
            (6, self.pay),
            (6, self.withdraw),
            (8, self.mine),
            (5, self.catch_up),
            (3, self.reorganise),
            (2, self.undo_a_payment),
            (3, self.refuse),
            (1, self.kill),
        ]
        await self._begin()
        for _ in range(steps):
            [act] = self.chance.choices([act for _, act in acts], [weight for weight, _ in acts])
            await act()
            await self._forget_deep_ones()

    async def _begin(self) -> None:
        """Let everybody have something to withdraw."""
        for address in self.addresses:
            for code in NUMBERS:
                await self._pay(address, code, 2 * UNITS)
        # No reorganisation takes back what the world began with.
        _ = await self.anvil.mine(DEEPEST)
        for _ in range(CONFIRMATIONS):
            await self.catch_up()
        self._fresh.clear()

    def _units(self, most: int) -> int:
        return self.chance.randint(LEAST, most) // 100 * 100

    # -- strangers

    async def pay(self) -> None:
        """Pay ether or tokens to one address or several, by one stranger or several."""
        for _ in range(self.chance.randint(1, 3)):
            await self._pay(self.chance.choice(list(self.addresses)), self.chance.choice(("ETH", "ETH", "USDT")))
        self.done["paid"] += 1

    async def _pay(self, address: str, code: str, units: int = 0) -> None:
        units = (units or self._units(3 * UNITS)) * CHAIN_UNITS[code] // (1 if code == "ETH" else 100)
        if code == "ETH":
            sent = self._signed(self.chance.randrange(STRANGERS), address, units, "0x", 21_000)
        else:
            data = call_data("mint(address,uint256)", address, units)
            sent = self._signed(self.chance.randrange(STRANGERS), self.token, 0, data, 200_000)
        self._sent[sent.stranger].append(sent)
        self._fresh.append(sent)
        await self._send(sent)

    def _signed(self, stranger: int, to: str, value: int, data: str, gas: int, replaced: Sent | None = None) -> Sent:
        """Return a stranger's transaction with the next nonce, or with that of the one that it replaces."""
        nonce = len(self._sent[stranger]) if replaced is None else replaced.nonce
        fee = 3 if replaced is None else 9
        fields = {"type": 2, "chainId": self.anvil.chain_id, "nonce": nonce, "to": to, "value": value, "data": data}
        fees = {"gas": gas, "maxFeePerGas": fee * _GWEI, "maxPriorityFeePerGas": fee * _GWEI}
        signed = self._keys[stranger].sign_transaction(fields | fees)
        return Sent(signed.hash.to_0x_hex(), signed.raw_transaction.to_0x_hex(), stranger, nonce)

    async def _send(self, sent: Sent) -> None:
        with suppress(RpcError):  # it is known already, or mined
            _ = await self.anvil.rpc("eth_sendRawTransaction", sent.raw)

    async def mine(self) -> None:
        """Mine blocks with what waits."""
        _ = await self.anvil.mine(self.chance.randint(1, 3))

    async def reorganise(self) -> None:
        """Replace the newest blocks by more of them; what was in them is mined again at once, or later."""
        depth = self.chance.randint(1, DEEPEST)
        await self._leave(depth)
        if self.chance.random() < 0.5:
            _ = await self.anvil.mine(1)
        if self.chance.random() < 0.5:
            # What the branch that lost had refused is refused by this one too.
            await self._refuse_still()
        await self._remind()
        _ = await self.anvil.mine(1)
        self.done[f"reorganised {depth}"] += 1

    async def _leave(self, depth: int) -> None:
        """Replace the newest blocks by empty ones, and have the node forget what waits: it would try it in an order in
        which it is not valid any more, and throw it away."""
        strangers = {key.address for key in self._keys}
        height = await self.anvil.height()
        for left in range(height - depth + 1, height + 1):
            block = await self.anvil.rpc("eth_getBlockByNumber", hex(left), True)
            for it in block["transactions"]:
                if EVM.normalise(it["from"]) not in strangers:
                    self._left[it["hash"]] = await self.anvil.rpc("eth_getRawTransactionByHash", it["hash"])
        await self.anvil.reorg(depth)
        await self.anvil.rpc("anvil_dropAllTransactions")

    async def _remind(self) -> None:
        """Show the node what strangers have sent and no block has, as other nodes would, and what it left behind of the
        house's."""
        for raw in self._left.values():
            with suppress(RpcError):
                _ = await self.anvil.rpc("eth_sendRawTransaction", raw)
        self._left.clear()
        for sent, key in zip(self._sent, self._keys, strict=True):
            mined = int(await self.anvil.rpc("eth_getTransactionCount", key.address, "latest"), 16)
            for it in sent[mined:]:
                await self._send(it)

    async def undo_a_payment(self) -> None:
        """Have a stranger spend the nonce of a payment to us, in a block or not, for something else."""
        if not self._fresh:
            return
        sent = self.chance.choice(self._fresh)
        depth = await self._depth(sent)
        if depth:
            await self._leave(depth)
        stranger = self._keys[sent.stranger].address
        rival = self._signed(sent.stranger, stranger, 0, "0x", 21_000, replaced=sent)
        self._sent[sent.stranger][sent.nonce] = rival
        self._fresh.remove(sent)
        await self._send(rival)
        await self._remind()
        if depth or self.chance.random() < 0.5:
            _ = await self.anvil.mine(1)
        self.done[f"undone {depth}"] += 1

    async def _forget_deep_ones(self) -> None:
        """A payment that was ever deep is not undone any more."""
        self._fresh = [sent for sent in self._fresh if await self._depth(sent) < DEEPEST]

    async def _depth(self, sent: Sent) -> int:
        """Return how many blocks a transaction is deep, 0 while it waits."""
        receipt = await self.anvil.rpc("eth_getTransactionReceipt", sent.txid)
        return 0 if receipt is None else await self.anvil.height() - int(receipt["blockNumber"], 16) + 1

    # -- customers, and their server

    async def withdraw(self) -> None:
        """Ask for a withdrawal to an address that nobody else is paid at, until there is an answer."""
        member = self.chance.choice(list(self.addresses.values()))
        code = self.chance.choice(("ETH", "USDT"))
        units = self._units(UNITS)
        address = EVM.normalise(f"0x{self.chance.randrange(1, 2**160):040x}")
        self._asked += 1
        body = {"currency": code, "address": address, "amount": f"{Decimal(units) / UNITS:f}", "tag": ""}
        answer = await self.server.post(member, "wallet/withdraw", body, f"withdrawal-{self._asked}")
        if self.chance.random() < 0.15:
            # The same again, as a client does that has heard nothing: it is the same withdrawal.
            await self.kill()
            again = await self.server.post(member, "wallet/withdraw", body, f"withdrawal-{self._asked}")
            if answer.status_code == 200:
                assert again.json() == answer.json()
            answer = again
        if answer.status_code == 200:
            self.accepted[answer.json()["withdrawId"]] = (code, address, units)
            self.done["withdrawn"] += 1
        else:
            assert answer.json()["code"] in _REFUSED, answer.text
            self.done["refused"] += 1

    async def refuse(self) -> None:
        """Let receivers of ours take no ether for a while: the block with their payments takes the fees only."""
        await self.withdraw()
        receivers = {address for _, address, _ in self.accepted.values()}
        for _ in range(_LOOKS):
            block = await self.anvil.rpc("eth_getBlockByNumber", "pending", True)
            waiting = {EVM.normalise(it["to"]) for it in block["transactions"] if it["to"]} & receivers
            if waiting:
                break
            await asyncio.sleep(_LOOK_S)
        for address in sorted(waiting):
            await self.anvil.rpc("anvil_setCode", address, REFUSES)
            self._refusing.add(address)
            self.done["refused to take"] += 1
        _ = await self.anvil.mine(self.chance.randint(1, 3))
        await self.catch_up()
        if self.chance.random() < 0.5:
            await self.reorganise()

    async def _refuse_still(self) -> None:
        for address in sorted(self._refusing):
            await self.anvil.rpc("anvil_setCode", address, REFUSES)

    async def _take_again(self) -> None:
        for address in self._refusing:
            await self.anvil.rpc("anvil_setCode", address, "0x")

    async def catch_up(self) -> None:
        """Let the server work through what the node shows, and mine what it sends then."""
        height = await self.anvil.height()

        async def has() -> bool:
            return (await self.server.network())["height"] >= height

        await wait_until(has, "the server has worked through the chain")
        _ = await self.anvil.mine(1)

    async def kill(self) -> None:
        """End the server at once, perhaps let the world go on, and start it again."""
        await self.server.kill()
        if self.chance.random() < 0.5:
            await self.chance.choice([self.pay, self.mine, self.reorganise])()
        await self.server.start()
        self.done["killed"] += 1

    # -- rest

    async def come_to_rest(self, house: EvmHouse) -> None:
        """Repay what is owed and what the house has lost, and mine until nothing is under way any more."""
        await house.anvil.pay(house.hot, 50 * ETHER)
        await house.mint(house.hot, 50_000_000)
        await self._take_again()
        for address in self.addresses:
            for code in NUMBERS:
                await self._pay(address, code, 8 * UNITS)
        # By time and not by blocks: those are mined faster than a busy machine's house can work.
        with suppress(TimeoutError):
            async with asyncio.timeout(REST_S):
                await self._rest(house)

    async def _rest(self, house: EvmHouse) -> None:
        """Mine until nothing is under way any more, nor begins when the last deposits are credited."""
        quiet = 0
        while quiet <= CONFIRMATIONS:
            await self._remind()
            _ = await self.anvil.mine(1)
            await house.worked_through()
            await self._approve(house)
            _ = await house.keeper.step()
            quiet = 0 if house.is_busy() else quiet + 1

    async def _approve(self, house: EvmHouse) -> None:
        """Give the word on withdrawals whose customers have come to owe something, once they do not."""
        context = house.house.application.context
        for waiting in house.store.rows(Withdrawal, {"state": WithdrawalState.AWAITING}, 1_000):
            if not any(house.store.row(Head, owed(waiting.owner, it).pack()).after for it in NUMBERS.values()):
                await perform_own(context, lambda ref=waiting.ref: prepare_approval(context, NOBODY, ref))

    async def judge(self, house: EvmHouse) -> None:
        """Hold the books against the chain's own blocks, and against themselves."""
        told = await self._received()
        self.done["void"] = sum(it.state == PaymentState.VOIDED for it in house.payments())
        busy = [it for it in house.payments() if it.state in OPEN_PAYMENTS]
        assert not house.is_busy(), f"never came to rest: {busy}, {house.house.application.treasury.status()}"
        spent: Counter[tuple[int, str]] = Counter()
        for ref, (code, address, units) in self.accepted.items():
            row = house.store.row(Withdrawal, int(ref))
            wanted = [units * CHAIN_UNITS[code] // (1 if code == "ETH" else 100)]
            paid = [units for asset, units, _ in told.get(address, [])]
            if row.state == WithdrawalState.SETTLED:
                assert paid == wanted, f"withdrawal {ref} is settled and was paid {paid} of {wanted}"
                spent[row.owner, code] += units
            else:
                assert row.state == WithdrawalState.FAILED, f"withdrawal {ref} never ended: {row}"
                assert paid == [], f"withdrawal {ref} has failed and was paid {paid}"
        strangers = {key.address for key in self._keys}
        for member in set(self.addresses.values()):
            for code in NUMBERS:
                brought = sum(
                    units
                    for address, owner in self.addresses.items()
                    if owner == member
                    for asset, units, sender in told.get(address, [])
                    if asset == code and sender in strangers
                )
                has = Decimal(brought) / (ETHER if code == "ETH" else 10**6) - Decimal(spent[member.uid, code]) / UNITS
                assert await house.balance(member, code) == (has, has), (member.name, code)
        await self._check_deposits(house, told, strangers)
        await self._check_ends(house)
        house.check_books()
        found = await house.reconciled_all()
        assert [it.differences for it in found] == [(), ()], found

    async def _check_deposits(self, house: EvmHouse, told: dict[str, Any], strangers: set[str]) -> None:
        """See that each deposit that the chain has is credited once, and no other one is."""
        credited = 0
        for deposit in house.store.each(Deposit):
            state = DepositState(deposit.state)
            waits = state in {DepositState.SEEN, DepositState.REVERSED, DepositState.DROPPED} and not deposit.block
            assert state is DepositState.CREDITED or waits, deposit
            credited += state is DepositState.CREDITED and bool(deposit.owner)
        paid = [it for address in self.addresses for it in told.get(address, []) if it[2] in strangers]
        assert credited == len(paid)

    async def _check_ends(self, house: EvmHouse) -> None:
        """See that each payment has ended by a block that stands, as the chain's own receipt has it."""
        for payment in house.payments():
            if not payment.block:
                continue
            block = await self.anvil.rpc("eth_getBlockByHash", payment.block, False)
            stands = block and await self.anvil.rpc("eth_getBlockByNumber", block["number"], False)
            assert stands, f"payment {payment.ref} has ended by a block that is nowhere: {payment}"
            assert stands["hash"] == payment.block, (
                f"payment {payment.ref} has ended by a block that is gone: {payment}"
            )
            receipts = [await self.anvil.rpc("eth_getTransactionReceipt", txid) for txid in payment.candidates]
            ends = [it["status"] for it in receipts if it and it["blockHash"] == payment.block]
            wanted = ["0x1"] if payment.state == PaymentState.FINAL else ["0x0"] if payment.height else []
            assert ends == wanted, f"payment {payment.ref} has ended otherwise: {ends}, {payment}"

    async def _received(self) -> dict[str, list[tuple[str, int, str]]]:
        """Return what each address was paid by the blocks of the best chain: asset, chain units and sender."""
        found: dict[str, list[tuple[str, int, str]]] = {}
        for height in range(1, await self.anvil.height() + 1):
            block = await self.anvil.rpc("eth_getBlockByNumber", hex(height), True)
            for it in block["transactions"]:
                receipt = await self.anvil.rpc("eth_getTransactionReceipt", it["hash"])
                if receipt["status"] != "0x1":
                    continue
                sender = EVM.normalise(it["from"])
                if int(it["value"], 16):
                    found.setdefault(EVM.normalise(it["to"]), []).append(("ETH", int(it["value"], 16), sender))
                for log in receipt["logs"]:
                    if log["topics"][0] == TRANSFER_TOPIC:
                        to = EVM.normalise("0x" + log["topics"][2][-40:])
                        found.setdefault(to, []).append(("USDT", int(log["data"], 16), sender))
        return found
