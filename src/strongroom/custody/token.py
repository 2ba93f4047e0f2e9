"""A key-encryption key in a PKCS#11 token: AES-256, sensitive and not extractable, so the token alone can use it."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any, Final

from strongroom.custody.vault import VaultError

DEFAULT_KEY_LABEL: Final = "strongroom-vault"
_KEY_BITS: Final = 256
_TAG_BITS: Final = 128


class TokenKey:
    """One key of one token, by their labels; each use opens a session and logs in with the PIN.

    Needs the package python-pkcs11 (the extra `hsm`) and the token maker's PKCS#11 module, a shared library.
    """

    def __init__(self, module: str, token_label: str, pin: str, key_label: str = DEFAULT_KEY_LABEL) -> None:
        self._module = module
        self._pin = pin
        self._token_label = token_label
        self._key_label = key_label

    @property
    def token_label(self) -> str:
        """Return the label of the token that the key lies in."""
        return self._token_label

    @property
    def key_label(self) -> str:
        """Return the label of the key."""
        return self._key_label

    def generate(self) -> None:
        """Make the key in the token. Raises `VaultError`, also where the token has a key of that label."""
        with self._session(writable=True) as (pkcs11, session):
            found = list(session.get_objects(self._named(pkcs11)))
            if found:
                raise VaultError(f"the token has a key {self._key_label} already, and nothing is overwritten")
            attribute = pkcs11.Attribute
            template = {attribute.SENSITIVE: True, attribute.EXTRACTABLE: False}
            _ = session.generate_key(
                pkcs11.KeyType.AES, _KEY_BITS, label=self._key_label, store=True, template=template
            )

    def wrap(self, nonce: bytes, key: bytes, context: bytes) -> bytes:
        """Return `key` encrypted with AES-256-GCM in the token, `context` authenticated. Raises `VaultError`."""
        return self._use(lambda kek, how: kek.encrypt(key, **how), nonce, context)

    def unwrap(self, nonce: bytes, wrapped: bytes, context: bytes) -> bytes:
        """Return the key that was wrapped. Raises `VaultError`."""
        return self._use(lambda kek, how: kek.decrypt(wrapped, **how), nonce, context)

    def _use(self, work: Callable[[Any, dict[str, Any]], bytes], nonce: bytes, context: bytes) -> bytes:
        with self._session() as (pkcs11, session):
            found = list(session.get_objects(self._named(pkcs11)))
            if len(found) != 1:
                raise VaultError(f"the token has {len(found) or 'no'} keys {self._key_label}")
            kek, attribute = found[0], pkcs11.Attribute
            if not kek[attribute.SENSITIVE] or kek[attribute.EXTRACTABLE]:
                raise VaultError(f"the token's key {self._key_label} could be read out of it: it is not used")
            how = {
                "mechanism": pkcs11.Mechanism.AES_GCM,
                "mechanism_param": pkcs11.GCMParams(nonce, context, _TAG_BITS),
            }
            return bytes(work(kek, how))

    def _named(self, pkcs11: Any) -> dict[Any, Any]:
        attribute = pkcs11.Attribute
        return {attribute.CLASS: pkcs11.ObjectClass.SECRET_KEY, attribute.LABEL: self._key_label}

    @contextmanager
    def _session(self, *, writable: bool = False) -> Generator[tuple[Any, Any]]:
        """Log in, and turn what the token says no to into a line for the operator."""
        try:
            import pkcs11  # pyright: ignore[reportMissingTypeStubs]
        except ImportError:
            raise VaultError("a token needs the package python-pkcs11: install strongroom[hsm]") from None
        library: Any = pkcs11
        try:
            token = library.lib(self._module).get_token(token_label=self._token_label)
            with token.open(user_pin=self._pin, rw=writable) as session:
                yield library, session
        except library.exceptions.NoSuchToken:
            raise VaultError(f"there is no token {self._token_label}") from None
        except library.exceptions.PinIncorrect:
            raise VaultError("the token's PIN is wrong") from None
        except (library.exceptions.PKCS11Error, RuntimeError) as error:
            raise VaultError(f"the token did not do it: {type(error).__name__} {error}".rstrip()) from None
