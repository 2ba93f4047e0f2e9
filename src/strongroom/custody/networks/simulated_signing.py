"""How the payments of a simulated network are explained and signed: the smallest scheme there is."""

from __future__ import annotations

from coincurve import PrivateKey

from strongroom.custody.derivation import hot_key
from strongroom.custody.families import Network
from strongroom.custody.networks.simulated_transactions import Payment, assemble, open_blob
from strongroom.custody.signer import Explained, payment_digest
from strongroom.wallet.payments import nonce_text


class SimulatedScheme:
    """A `Scheme` of one simulated network: ECDSA on secp256k1 over the payment's digest, in DER with a low S."""

    def __init__(self, network: Network, seed: bytes) -> None:
        """Derive the hot wallet's key; the seed is not kept."""
        self._network = network
        self._key = PrivateKey(hot_key(seed, network))

    def explain(self, body: bytes) -> Explained:
        """Return whom a payment pays, its fee in the native coin's smallest unit, and its nonce. Raises `Rejected`."""
        payment = self._read(body)
        return Explained(payment.payees, payment.fee, (nonce_text(payment.nonce, payment.source),))

    def sign(self, body: bytes) -> bytes:
        """Return the DER signature of a payment's canonical bytes (RFC 6979). Raises `Rejected`."""
        _ = self._read(body)
        return self._key.sign(payment_digest(body), hasher=None)  # pyright: ignore[reportUnknownMemberType]

    def _read(self, body: bytes) -> Payment:
        """Read a payment as a node would, which looks at all of it before it looks at the signature."""
        payment, _, _ = open_blob(self._network, assemble(self._network, body, b"").blob)
        return payment
