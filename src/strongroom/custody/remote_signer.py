"""A signer in another process: payments are named to it, and it looks for itself."""

from __future__ import annotations

import asyncio
import base64
import binascii
from pathlib import Path
from typing import Final

import msgspec

from strongroom.custody.chain import Rejected, Unreachable
from strongroom.custody.signing_service import SignReply, SignRequest
from strongroom.custody.xpubs import PublicKeys

ANSWER_WITHIN_S: Final = 30
MAX_REPLY_BYTES: Final = 4 * 1024 * 1024


class RemoteSigner:
    """The `Signer` behind a Unix socket; public keys come from the public keys file, so no seed is in this process."""

    def __init__(self, path: Path, keys: PublicKeys, answer_within_s: float = ANSWER_WITHIN_S) -> None:
        self._path = path
        self._keys = keys
        self._answer_within_s = answer_within_s

    async def public_key(self, network: str) -> bytes:
        """Return the hot wallet's compressed public key (33 bytes). Raises `PublicKeysError` for an unknown network."""
        return self._keys.hot(network)

    async def sign(self, network: str, payment: int, body: bytes) -> bytes:
        """Return the signature of the payment's body as the books have it, which is `body`.

        Raises `Rejected` for the signer's no, `Unreachable` when it gives no answer.
        """
        request = msgspec.json.encode(SignRequest(network, payment)) + b"\n"
        try:
            async with asyncio.timeout(self._answer_within_s):
                line = await self._ask(request)
        except (OSError, TimeoutError, ValueError) as error:
            raise Unreachable(f"the signer does not answer: {str(error) or type(error).__name__}") from None
        return _signature(line)

    async def _ask(self, request: bytes) -> bytes:
        reader, writer = await asyncio.open_unix_connection(str(self._path), limit=MAX_REPLY_BYTES)
        try:
            writer.write(request)
            await writer.drain()
            return await reader.readline()
        finally:
            writer.close()


def _signature(line: bytes) -> bytes:
    if not line.endswith(b"\n"):
        raise Unreachable("the signer closed the connection without an answer")
    try:
        reply = msgspec.json.decode(line, type=SignReply)
        signature = base64.b64decode(reply.signature, validate=True)
    except (msgspec.MsgspecError, UnicodeDecodeError, binascii.Error):
        raise Unreachable("the signer's answer is none") from None
    if reply.error:
        raise Rejected(f"the signer refuses: {reply.error}")
    if not signature:
        raise Unreachable("the signer's answer is empty")
    return signature
