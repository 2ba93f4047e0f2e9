"""What can be asked of a house by its operator: one JSON line a request, one JSON line a reply."""

from __future__ import annotations

from typing import Any, Final

import msgspec

MAX_LINE_BYTES: Final = 6 * 1024 * 1024
"""The longest request: one with a signed payment in it."""

MAX_REPLY_BYTES: Final = 4 * 1024 * 1024
"""The longest reply."""


class AdminError(Exception):
    """The operator asked for what cannot be done; the message says why, in one line."""


class Request(msgspec.Struct, frozen=True, tag_field="do", forbid_unknown_fields=True):
    """One request; its kind is in the member `do`. Users are named by username, mail or uid."""


class AddUser(Request, frozen=True, tag="user add"):
    """Open a user, or with `parent` a sub-account."""

    username: str
    email: str
    parent: str = ""


class ListUsers(Request, frozen=True, tag="user list"):
    """List all users, at most 1,000."""


class ShowUser(Request, frozen=True, tag="user show"):
    """Show a user with its sub-accounts."""

    user: str


class FreezeUser(Request, frozen=True, tag="user freeze"):
    """Freeze a user, who may then receive but not spend, or thaw it."""

    user: str
    frozen: bool


class CreateKey(Request, frozen=True, tag="key create"):
    """Make an API key. `expires_ms` is Unix milliseconds, 0 for never; `networks` in CIDR form, empty for all."""

    user: str
    permissions: list[str]
    networks: list[str] = []
    expires_ms: int = 0
    tier: str = ""
    label: str = ""


class ListKeys(Request, frozen=True, tag="key list"):
    """List a user's API keys."""

    user: str


class RevokeKey(Request, frozen=True, tag="key revoke"):
    """Make an API key useless from the next request on."""

    key: str


class PayFromFaucet(Request, frozen=True, tag="faucet"):
    """Let a stranger pay a user: coins to its address on a practice chain, money to the house's bank.

    `mine` makes the blocks it needs at once, `wait` answers when it is credited.
    """

    user: str
    asset: str
    amount: str
    network: str | None = None
    mine: bool = False
    wait: bool = False


class ShowBalance(Request, frozen=True, tag="balance"):
    """Show what a user has of each asset."""

    user: str


class ListDeposits(Request, frozen=True, tag="deposit list"):
    """List deposits in a state, oldest first, at most 1,000; `open` stands for all that are still followed."""

    state: str = "open"


class ListDebts(Request, frozen=True, tag="debt list"):
    """List the customers who owe the house after reorganisations, at most 1,000."""


class ListWithdrawals(Request, frozen=True, tag="withdrawal list"):
    """List withdrawals in a state, oldest first, at most 1,000; `open` stands for all that are not at their end."""

    state: str = "open"


class ApproveWithdrawal(Request, frozen=True, tag="withdrawal approve"):
    """Let a withdrawal that awaits approval be paid."""

    ref: int


class RejectWithdrawal(Request, frozen=True, tag="withdrawal reject"):
    """Turn down a withdrawal that awaits approval."""

    ref: int


class GiveUpWithdrawal(Request, frozen=True, tag="withdrawal give-up"):
    """Fail a withdrawal whose payment can never be mined, as a coin it spends is gone with its deposit."""

    ref: int


class AssignWithdrawal(Request, frozen=True, tag="withdrawal assign"):
    """Name the user for whom the house has paid what a restored backup did not know."""

    ref: int
    user: str


class AssignDeposit(Request, frozen=True, tag="deposit assign"):
    """Name the user that a withheld deposit is for; its address is the user's from then on."""

    ref: int
    user: str


class ShowRates(Request, frozen=True, tag="rates show"):
    """Show every price the house knows, with its source and age."""


class SetRate(Request, frozen=True, tag="rates set"):
    """Declare a price: one unit of the pair's first asset costs `price` of the second. It outlives the server."""

    pair: str
    price: str


class Reconcile(Request, frozen=True, tag="reconcile"):
    """Hold the books against the chains, network by network."""


class ListPayments(Request, frozen=True, tag="payment list"):
    """List payments in a state, oldest first, at most 1,000; `open` stands for all that are not at their end."""

    state: str = "open"


class HurryPayment(Request, frozen=True, tag="payment hurry"):
    """Offer a payment that waits for a higher fee, now and not after its time."""

    ref: int


class GiveUpPayment(Request, frozen=True, tag="payment give-up"):
    """Void a move of the house's own money that can never be mined, as a coin it spends is gone."""

    ref: int


class ShowHotWallets(Request, frozen=True, tag="hot"):
    """Show what the hot wallets have, beside their marks."""


class PrepareCold(Request, frozen=True, tag="cold prepare"):
    """Prepare a payment to a network's cold address, to be signed elsewhere."""

    network: str
    asset: str
    amount: str


class ExportCold(Request, frozen=True, tag="cold export"):
    """Give out a payment that waits to be signed elsewhere."""

    ref: int


class ImportCold(Request, frozen=True, tag="cold import"):
    """Take back a payment that was signed elsewhere: what a vault or another wallet has written."""

    ref: int
    content: bytes


class HurryCold(Request, frozen=True, tag="cold hurry"):
    """Give out a payment that was signed elsewhere and waits for its block once more, for a higher fee."""

    ref: int


class GiveUpCold(Request, frozen=True, tag="cold give-up"):
    """Give up a payment that is signed elsewhere: the hot wallet spends its nonce on nothing."""

    ref: int


class ReturnedFromCold(Request, frozen=True, tag="cold returned"):
    """Book that money of a cold address has arrived at the house's own address; the chain took `fee` on the way."""

    asset: str
    amount: str
    fee: str = "0"


class ListNetworks(Request, frozen=True, tag="network list"):
    """List the networks, and why payments wait on them after a restore."""


class ReleaseNetwork(Request, frozen=True, tag="network release"):
    """Let a network's payments go on, though books and chain do not agree or payments are left that are nobody's."""

    network: str


class MineBlocks(Request, frozen=True, tag="chain mine"):
    """Mine blocks on a practice chain."""

    network: str
    count: int = 1


class Reorganise(Request, frozen=True, tag="chain reorg"):
    """Replace the newest blocks of a practice chain by others."""

    network: str
    depth: int


class FailNext(Request, frozen=True, tag="chain fail-next"):
    """Let a practice chain's next payment of ours fail for good; `undone`: in a block that takes its fee all the
    same."""

    network: str
    undone: bool = False


AnyRequest = (
    AddUser
    | ListUsers
    | ShowUser
    | FreezeUser
    | CreateKey
    | ListKeys
    | RevokeKey
    | PayFromFaucet
    | ShowBalance
    | ListDeposits
    | ListDebts
    | ListWithdrawals
    | ApproveWithdrawal
    | RejectWithdrawal
    | GiveUpWithdrawal
    | AssignWithdrawal
    | AssignDeposit
    | ShowRates
    | SetRate
    | Reconcile
    | ListNetworks
    | ReleaseNetwork
    | ListPayments
    | HurryPayment
    | GiveUpPayment
    | ShowHotWallets
    | PrepareCold
    | ExportCold
    | ImportCold
    | HurryCold
    | GiveUpCold
    | ReturnedFromCold
    | MineBlocks
    | Reorganise
    | FailNext
)


class Reply(msgspec.Struct, frozen=True, omit_defaults=True):
    """The answer: `result` as its kind of request has it, or why there is none."""

    error: str = ""
    result: Any = None


_REQUESTS: Final[msgspec.json.Decoder[AnyRequest]] = msgspec.json.Decoder(AnyRequest)
_REPLIES: Final = msgspec.json.Decoder(Reply)


def read_request(line: bytes) -> AnyRequest:
    """Return the request of a line. Raises `AdminError`."""
    try:
        return _REQUESTS.decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise AdminError(f"not a request: {error}") from None


def read_reply(line: bytes) -> Reply:
    """Return the reply of a line. Raises `AdminError`."""
    try:
        return _REPLIES.decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise AdminError("the server's answer cannot be read") from None


def line_of(message: msgspec.Struct) -> bytes:
    """Return a message as a line."""
    return msgspec.json.encode(message) + b"\n"
