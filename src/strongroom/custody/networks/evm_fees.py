"""What a payment on an EVM network offers for its gas (EIP-1559), in wei per unit of gas; pure."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import msgspec

from strongroom.custody.chain import Rejected
from strongroom.custody.networks.evm_reading import quantity, read

PLAIN_GAS: Final = 21_000
"""What a transfer of the native coin to an account without code takes, always."""

_GWEI: Final = 10**9
_BASE_FEE_ROOM: Final = 2  # the base fee rises by an eighth a block at most: room for six full blocks


class FeeTerms(msgspec.Struct, frozen=True):
    """How much may be paid: the priority fee is at least `priority_floor`, the whole fee at most `fee_cap`, both in
    wei per unit of gas; gas is estimated, raised by `gas_margin_percent`, and at most `gas_cap`."""

    priority_floor: int = _GWEI
    fee_cap: int = 500 * _GWEI
    gas_margin_percent: int = 25
    gas_cap: int = 500_000


class Fees(NamedTuple):
    """The highest fee and the priority fee in it, in wei per unit of gas."""

    highest: int
    priority: int


class _History(msgspec.Struct, frozen=True, rename="camel"):
    base_fee_per_gas: tuple[str, ...]
    reward: tuple[tuple[str, ...], ...] | None = None


def fees_from(answer: Any, terms: FeeTerms) -> Fees:
    """Return the fees to offer now, from the answer to `eth_feeHistory` for the median. Raises `Unreachable`."""
    history = read(answer, _History)
    base_fee = quantity(history.base_fee_per_gas[-1]) if history.base_fee_per_gas else 0
    rewards = sorted(quantity(reward[0]) for reward in history.reward or () if reward)
    usual = rewards[len(rewards) // 2] if rewards else 0
    priority = min(max(usual, terms.priority_floor), terms.fee_cap)
    return Fees(min(_BASE_FEE_ROOM * base_fee + priority, terms.fee_cap), priority)


def raised(before: Fees, now: Fees, terms: FeeTerms) -> Fees | None:
    """Return fees that replace `before` and are no lower than those to offer `now`, or None beyond the cap.

    Nodes take a replacement that offers a tenth more of both; an eighth is what some ask for.
    """
    least = Fees(_eighth_more(before.highest), _eighth_more(before.priority))
    if least.highest > terms.fee_cap:
        return None
    highest = max(least.highest, now.highest)
    return Fees(highest, min(max(least.priority, now.priority), highest))


def gas_limit(estimate: int, terms: FeeTerms) -> int:
    """Return the gas to allow a payment. Raises `Rejected` for one that takes more than may be paid for."""
    if estimate > terms.gas_cap:
        raise Rejected(f"the payment takes {estimate} gas, more than {terms.gas_cap}")
    if estimate <= PLAIN_GAS:
        return PLAIN_GAS
    return min(estimate * (100 + terms.gas_margin_percent) // 100, terms.gas_cap)


def _eighth_more(fee: int) -> int:
    """Return a fee raised by an eighth, rounded up, and by one at least."""
    return max(fee + 1, -(-fee * 9 // 8))
