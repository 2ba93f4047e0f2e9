"""The master key: 32 bytes that encrypt every secret of the data folder, from a file or the environment."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from strongroom.config.settings import Config, ConfigError
from strongroom.files import write_new

MASTER_KEY_BYTES: Final = 32
VARIABLE: Final = "STRONGROOM_MASTER_KEY"

_HEX: Final = re.compile(r"[0-9a-fA-F]{64}")
_OTHERS: Final = 0o077


def load_master_key(config: Config, environ: Mapping[str, str]) -> bytes:
    """Return the master key from the environment, else from its file.

    Raises `ConfigError` when there is none, it is not 32 bytes in hex or base64, or others may read its file.
    """
    if text := environ.get(VARIABLE):
        return _decoded(text, VARIABLE)
    if not config.master_key_file:
        raise ConfigError([f"there is no master key: set 'master_key_file', or {VARIABLE} in the environment"])
    return _read(Path(config.master_key_file))


def _read(path: Path) -> bytes:
    try:
        mode = path.stat().st_mode
        text = path.read_text("ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError([f"cannot read the master key file {path}: {error}"]) from None
    if mode & _OTHERS:
        raise ConfigError([f"others may read the master key file {path}: chmod 600 it"])
    return _decoded(text, str(path))


def _decoded(text: str, where: str) -> bytes:
    text = text.strip()
    try:
        key = bytes.fromhex(text) if _HEX.fullmatch(text) else base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != MASTER_KEY_BYTES:
        # The text itself is not shown: it may be a key with a slip in it.
        raise ConfigError([f"{where} is not a master key: 32 bytes in hex or base64"])
    return key


def write_master_key(path: Path, key: bytes) -> None:
    """Write a new master key file, in hex, that only its owner can read. Raises `FileExistsError`."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_new(path, f"{key.hex()}\n".encode())
