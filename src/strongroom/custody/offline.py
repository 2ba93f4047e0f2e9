"""The file in which a payment travels to be signed elsewhere: JSON that a person can read, and a vault can check.

    the books --encode--> FILE --carried--> vault --encode_signed--> FILE.signed --carried back--> signed_text

Whom it pays, how much and for what fee stands in the file for people. Who signs believes none of it: it is made again
from the body, the bytes that are signed, and a file that says anything else is refused.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable
from typing import Annotated, Any, Final, Literal, TypeVar

import msgspec

from strongroom.custody.chain import Payee
from strongroom.custody.families import NATIVE, Network
from strongroom.custody.signer import Scheme
from strongroom.money import format_amount

VERSION: Final = 1
MAX_FILE_BYTES: Final = 1024 * 1024
"""A file with a payment is at most so large; the largest payment takes half of it."""

MAX_SIGNED_BYTES: Final = 4 * 1024 * 1024
"""What comes back is at most so large; other wallets put the whole of earlier transactions into a PSBT."""

NATIVE_NAME: Final = "native"
"""What a file calls the network's own coin; any other asset has the chain's own name for it."""

_PSBT: Final = b"psbt\xff"
_MAX_BRACKETS: Final = 1_200

Name = Annotated[str, msgspec.Meta(pattern=r"\A[A-Za-z0-9_-]{1,64}\Z")]
"""A word without anything that a terminal would take for a command."""

Number = Annotated[str, msgspec.Meta(pattern=r"\A[0-9]{1,20}\Z")]
Amount = Annotated[str, msgspec.Meta(pattern=r"\A[0-9]{1,80}(\.[0-9]{1,80})?\Z")]
_File = TypeVar("_File", "Unsigned", "Signed")


class OfflineError(ValueError):
    """A file cannot be used; the message says why."""


class Paid(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One that a payment pays, for people: the amount is decimal text in whole coins."""

    to: str
    tag: str
    asset: str
    amount: Amount


class Unsigned(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A payment to be signed. `body` is what Strongroom's own vault signs, `unsigned` the same for other signers.

    `payment` is its reference in the books and `kind` what it is for: both are words of the books' only.
    """

    format: Literal["strongroom-unsigned-payment"]
    version: int
    network: Name
    payment: Number
    kind: Name
    pays: tuple[Paid, ...]
    fee: Amount
    body: bytes
    unsigned: str


class Signed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a vault made of a payment: the text that the chain's `import_signed` takes."""

    format: Literal["strongroom-signed-payment"]
    version: int
    network: Name
    payment: Number
    signed: str


def unsigned_payment(
    network: Network, payment: int, kind: str, payees: Iterable[Payee], fee: int, body: bytes, unsigned: str
) -> Unsigned:
    """Return the file of a payment; `fee` is in the native coin's smallest unit, `unsigned` the chain's text of `body`.

    Raises `OfflineError` for an asset that the network does not have.
    """
    pays, fee_text = _told(network, payees, fee)
    return Unsigned(
        "strongroom-unsigned-payment", VERSION, network.id, str(payment), kind, pays, fee_text, body, unsigned
    )


def encode(file: Unsigned) -> bytes:
    """Return a file's content. Raises `OfflineError` for one that nobody could read again."""
    content = _spelled(file)
    if len(content) > MAX_FILE_BYTES:
        raise OfflineError(f"the payment is larger than {MAX_FILE_BYTES} bytes")
    return content


def decode(content: bytes) -> Unsigned:
    """Return the payment of a file's content, as it says of itself. Raises `OfflineError`."""
    if len(content) > MAX_FILE_BYTES:
        raise OfflineError(f"not a payment to be signed: it is larger than {MAX_FILE_BYTES} bytes")
    return _read(content, Unsigned, "a payment to be signed")


def checked(file: Unsigned, network: Network, scheme: Scheme) -> Unsigned:
    """Return a file as its body alone says it, in which nothing of the file's own words is left but reference and kind.

    Raises `OfflineError` where the file says something else, `Rejected` for a body that the vault would not sign:
    inputs or change that are not its own, a transaction of another chain, no transaction at all.
    """
    explained = scheme.explain(file.body)
    pays, fee = _told(network, explained.payees, explained.fee)
    if file.network != network.id:
        raise OfflineError(f"the file is for {file.network}, not for {network.id}")
    if len(file.pays) != len(pays):
        raise OfflineError(f"the file was changed: it says {len(file.pays)} payees, and would pay {len(pays)}")
    for said, true in zip(file.pays, pays, strict=True):
        if said != true:
            raise OfflineError(f"the file was changed: it says {_sentence(said)}, and would pay {_sentence(true)}")
    if file.fee != fee:
        raise OfflineError(f"the file was changed: it says a fee of {file.fee}, and would pay {fee}")
    return msgspec.structs.replace(file, pays=pays, fee=fee, unsigned="")


def sign(file: Unsigned, network: Network, scheme: Scheme) -> Signed:
    """Return what the vault's keys make of a file's body. Raises `OfflineError` and `Rejected` as `checked` does."""
    _ = checked(file, network, scheme)
    signed = scheme.sign(file.body).hex()
    return Signed("strongroom-signed-payment", VERSION, file.network, file.payment, signed)


def encode_signed(file: Signed) -> bytes:
    """Return the content of a signed file."""
    return _spelled(file)


def signed_text(content: bytes, network: str, payment: int) -> str:
    """Return what a chain's `import_signed` takes, of a vault's file or of what another wallet wrote.

    That is a PSBT, in bytes or in base64, or a transaction in hex. Raises `OfflineError` for a file of another payment.
    """
    if len(content) > MAX_SIGNED_BYTES:
        raise OfflineError(f"larger than {MAX_SIGNED_BYTES} bytes")
    if content.startswith(_PSBT):
        return base64.b64encode(content).decode()
    if content.lstrip()[:1] == b"{":
        file = _read(content, Signed, "a signed payment")
        if (file.network, file.payment) != (network, str(payment)):
            raise OfflineError(f"signed is payment {file.payment} of {file.network}, not {payment} of {network}")
        return file.signed
    try:
        return content.decode("ascii").strip()
    except UnicodeDecodeError:
        raise OfflineError("neither a signed payment, nor a PSBT, nor a transaction in hex") from None


def _told(network: Network, payees: Iterable[Payee], fee: int) -> tuple[tuple[Paid, ...], str]:
    paid: list[Paid] = []
    for payee in payees:
        if payee.asset_id not in network.decimals:
            raise OfflineError(f"{network.id} has no asset {payee.asset_id!r}")
        amount = format_amount(payee.amount, network.decimals[payee.asset_id])
        paid.append(Paid(payee.address, payee.tag, payee.asset_id or NATIVE_NAME, amount))
    return tuple(paid), format_amount(fee, network.decimals[NATIVE])


def _sentence(paid: Paid) -> str:
    # What a file says may be anything: nothing of it reaches a terminal unquoted.
    tag = f" with the tag {paid.tag!r}" if paid.tag else ""
    return f"{paid.amount} {paid.asset!r} to {paid.to!r}{tag}"


def _spelled(file: Unsigned | Signed) -> bytes:
    return msgspec.json.format(msgspec.json.encode(file), indent=2) + b"\n"


def _read(content: bytes, kind: type[_File], what: str) -> _File:
    """Read a file whose layout may be any, but whose fields are each there once and in their order."""
    # A library that is loaded with us lifts Python's bound on recursion: nesting is bounded here.
    if content.count(b"[") + content.count(b"{") > _MAX_BRACKETS:
        raise OfflineError(f"not {what}: it has too many parts")
    try:
        _check_version(msgspec.json.decode(content), what)
        file = msgspec.json.decode(content, type=kind)
        flat = msgspec.json.format(content, indent=-1)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise OfflineError(f"not {what}, or it was changed: {error}") from None
    if flat != msgspec.json.encode(file):
        raise OfflineError(f"not {what}, or it was changed: it says something twice, or in another spelling")
    return file


def _check_version(read: Any, what: str) -> None:
    version = read.get("version") if isinstance(read, dict) else None  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    if isinstance(version, int) and version != VERSION:
        raise OfflineError(f"{what} of version {version}, and only version {VERSION} is known here")
