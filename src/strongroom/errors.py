"""The closed list of refusals: every failure a client can be told of, with its status, code and message.

    Refused (Exception)            raised anywhere a request can be turned down; carries one `Error` of this list
    InvariantBroken (Exception)    raised by `check()`: our mistake; nothing is committed, the client gets SYSTEM_ERROR

Docs and OpenAPI are generated from `ERRORS`, so an error that is not in the list cannot be answered.
"""

from __future__ import annotations

from typing import Final

import msgspec


class Error(msgspec.Struct, frozen=True):
    """One row of the contract's error table; call it with the texts its message needs to get a `Refused`."""

    name: str
    status: int
    code: int
    message: str
    when: str
    retry_after_s: int | None = None

    def __call__(self, *texts: object, retry_after_s: int | None = None) -> Refused:
        """Return the exception to raise; `texts` fill the message's places in order."""
        return Refused(self, self.message.format(*texts), retry_after_s or self.retry_after_s)


class Refused(Exception):
    """A request was turned down for a reason of the closed list; nothing that it asked for was done.

    `retry_after_s` is only set where the reply promises that nothing was done and nothing will be.
    """

    def __init__(self, error: Error, message: str, retry_after_s: int | None = None) -> None:
        super().__init__(message)
        self.error = error
        self.message = message
        self.retry_after_s = retry_after_s


class InvariantBroken(Exception):
    """A check that must always hold did not: the program is wrong, and the operation was not carried out."""


def check(holds: bool, rule: str) -> None:
    """Raise `InvariantBroken` naming `rule` unless it holds; stays on in production, unlike `assert`."""
    if not holds:
        raise InvariantBroken(rule)


ERRORS: Final[dict[str, Error]] = {}


def _error(name: str, status: int, code: int, message: str, when: str, retry_after_s: int | None = None) -> Error:
    error = Error(name, status, code, message, when, retry_after_s)
    check(name not in ERRORS, f"error {name} is declared once")
    ERRORS[name] = error
    return error


AUTHENTICATION_FAILED = _error(
    "authentication_failed", 401, 10002, "UNAUTHORIZED: Authentication Failed", "the key is unknown, revoked or expired"
)
SIGNATURE_INVALID = _error(
    "signature_invalid", 401, 10002, "UNAUTHORIZED: Signature verification failed", "the signature does not match"
)
AUTHENTICATION_MISSING = _error(
    "authentication_missing",
    401,
    10002,
    "UNAUTHORIZED: api parameter is mandatory",
    "an authentication header is absent, malformed, repeated or in conflict with its alias",
)
INVALID_NONCE = _error(
    "invalid_nonce",
    401,
    401,
    "UNAUTHORIZED: Invalid nonce",
    "the nonce lies outside the window, or the signature was used before",
)
FORBIDDEN = _error(
    "forbidden", 403, 403, "FORBIDDEN: {}", "the key lacks the permission, or the address is not on its allow-list"
)
PARAMETER_MISSING = _error(
    "parameter_missing", 400, -2, "BADREQUEST: {} parameter is mandatory", "a mandatory parameter is absent or empty"
)
PARAMETER_INVALID = _error(
    "parameter_invalid",
    400,
    -2,
    "BADREQUEST: {}",
    "a parameter is malformed, repeated, contradictory or out of range; the body is not one JSON object; "
    "an address to delete is unknown; both assets are equal; a settlement rounds to 0; beyond the ledger's range",
)
INVALID_CURRENCY = _error(
    "invalid_currency",
    400,
    11,
    "BADREQUEST: Invalid currency {}",
    "the asset is unknown, disabled, or not offered for this action",
)
CONVERSION_REFUSED = _error(
    "conversion_refused",
    400,
    17,
    "BADREQUEST: {}",
    "a conversion has no rate, only one that is too old, too little inventory, or the account is frozen",
)
RECEIVER_NOT_FOUND = _error(
    "receiver_not_found",
    400,
    28,
    "BADREQUEST: Receiver not found",
    "the receiver is unknown, inactive, or its names do not match each other",
)
TRANSFER_REFUSED = _error(
    "transfer_refused", 400, 28, "BADREQUEST: {}", "a transfer to oneself, or by a frozen account"
)
INVALID_NETWORK = _error(
    "invalid_network",
    400,
    3505,
    "BADREQUEST: Invalid protocol",
    "the network is unknown for the asset, or suspended for the action",
)
INVALID_WITHDRAW_AMOUNT = _error(
    "invalid_withdraw_amount",
    400,
    3506,
    "BADREQUEST: Invalid withdraw amount",
    "the amount has too many decimals, is not positive, below the minimum, or does not cover the fee",
)
INVALID_WITHDRAW_ADDRESS = _error(
    "invalid_withdraw_address",
    400,
    3507,
    "BADREQUEST: Invalid withdraw address",
    "the address is wrong for the network, or its tag is missing, malformed or not wanted",
)
WITHDRAW_REFUSED = _error(
    "withdraw_refused",
    400,
    3508,
    "BADREQUEST: Withdraw failed: {}",
    "refused by policy: a limit, an allow-list, a frozen account",
)
ADDRESS_UNUSED = _error(
    "address_unused", 400, 3528, "BADREQUEST: {}", "an address that was never paid exists already; it is the message"
)
INSUFFICIENT_BALANCE = _error(
    "insufficient_balance",
    400,
    51523,
    "BADREQUEST: Insufficient wallet balance",
    "the debit goes beyond the available balance",
)
HISTORY_ASSET_MISSING = _error(
    "history_asset_missing",
    400,
    11000001,
    "Request parameter is error, 'asset' is required in spot wallet history query",
    "wallet v1 history was asked for without an asset",
)
IDEMPOTENCY_MISMATCH = _error(
    "idempotency_mismatch",
    422,
    -2,
    "BADREQUEST: Idempotency-Key was used with another request",
    "the Idempotency-Key belongs to another request of this user",
)
RATE_LIMITED = _error("rate_limited", 429, 303, "Rate limit exceeded", "a rate limit is exceeded", 1)
NOT_FOUND = _error("not_found", 404, 404, "NOTFOUND: {}", "no such path")
METHOD_NOT_ALLOWED = _error("method_not_allowed", 405, 405, "METHODNOTALLOWED: {}", "the path has other methods")
TOO_LARGE = _error("too_large", 413, 413, "TOOLARGE: {}", "the body is larger than 64 KiB")
REQUEST_TIMEOUT = _error("request_timeout", 408, -11, "TIMEOUT: {}", "the body did not arrive within 30 s")
UNAVAILABLE = _error("unavailable", 503, -11, "{}", "busy, draining, or a part of the system is away", 1)
SYSTEM_ERROR = _error("system_error", 500, -11, "System error", "our own mistake; logged under the X-Request-Id")
