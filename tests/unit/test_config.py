"""Settings: what the file and the environment may say, and how an operator is told what is wrong with them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from strongroom.config.catalogue import snapshot_of
from strongroom.config.reading import all_settings, settings_page
from strongroom.config.secrets import load_master_key, write_master_key
from strongroom.config.settings import Config, ConfigError, load_config
from strongroom.money import FeeFormula

ASSETS = """
[assets.BTC]
number = 1
name = "Bitcoin"
[assets.usdt]
number = 2
name = "Tether"
scale = 6
[networks.ERC20]
number = 7
short_name = "Ethereum"
name = "Ethereum (ERC20)"
family = "evm"
confirmations = 12
fee_asset = "BTC"
[offers.USDT.ERC20]
decimals = 6
token = "USDT"
default = true
"""


def load(folder: Path, text: str, **environ: str) -> Config:
    """Return the settings of a file with this text, and of these variables."""
    (folder / "settings.toml").write_text(text)
    return load_config(folder / "settings.toml", environ)


def problems(folder: Path, text: str, **environ: str) -> list[str]:
    """Return what is wrong with settings."""
    with pytest.raises(ConfigError) as caught:
        snapshot_of(load(folder, text, **environ))
    return caught.value.problems


def test_without_a_file_everything_has_its_default() -> None:
    """A server can be started with no settings at all."""
    config = load_config(None, {"PATH": "/bin"})
    assert (config.host, config.port, config.rate_limits["default"].wallet_per_2s) == ("127.0.0.1", 8080, 10)


def test_the_environment_wins_over_the_file(tmp_path: Path) -> None:
    """A variable replaces the file's value, and double underscores reach into tables."""
    config = load(
        tmp_path,
        'port = 1\ncors_origins = ["a"]\n[rates]\necb = true' + ASSETS,
        STRONGROOM_PORT="2",
        STRONGROOM_DRAIN_S="0.5",
        STRONGROOM_CORS_ORIGINS="https://a.example, https://b.example",
        STRONGROOM_RATES__ECB="false",
        STRONGROOM_RATES__TABLE='{"BTC/USDT": "1.5"}',
        STRONGROOM_ASSETS__USDT__ENABLED="false",
        STRONGROOM_RATE_LIMITS__DEFAULT__LADDER_S="1,2",
        STRONGROOM_MASTER_KEY="no setting",
    )
    assert (config.port, config.drain_s, config.cors_origins) == (2, 0.5, ("https://a.example", "https://b.example"))
    assert (config.rates.ecb, config.rates.table) == (False, {"BTC/USDT": "1.5"})
    assert (config.assets["USDT"].enabled, config.assets["USDT"].name) == (False, "Tether")
    assert config.rate_limits["default"].ladder_s == (1, 2)


def test_an_unknown_setting_names_its_nearest_neighbour(tmp_path: Path) -> None:
    """A slip in a name is found, in the file, deep in a table and in the environment, with what was meant."""
    text = "[rate_limit]\ndefualt = 5\n[rates]\nspraed = 1\n" + ASSETS.replace("short_name", "shortname")
    found = problems(tmp_path, text, STRONGROOM_HOTS="x")
    assert "unknown setting 'rate_limit.defualt', did you mean 'rate_limits.default'?" in found
    assert "unknown setting 'rates.spraed', did you mean 'rates.spread'?" in found
    assert "unknown setting 'networks.ERC20.shortname', did you mean 'networks.ERC20.short_name'?" in found
    assert "unknown setting 'hots', did you mean 'host'?" in found


def test_nothing_is_guessed_for_what_is_like_nothing(tmp_path: Path) -> None:
    """A name that resembles no setting is told without a suggestion."""
    assert problems(tmp_path, "zzzzzzzzzzzz = 1") == ["unknown setting 'zzzzzzzzzzzz'"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('port = "x"', "setting 'port' must be an integer, not 'x'"),
        ("port = 70000", "setting 'port' must be an integer, not 70000"),
        ("port = true", "setting 'port' must be an integer, not True"),
        ("host = 1", "setting 'host' must be a text, not 1"),
        ("rates = 1", "setting 'rates' must be a table, not 1"),
        ("assets = 1", "setting 'assets' must be a table, not 1"),
        ("trusted_proxies = [1]", "setting 'trusted_proxies' must be a list (a text each), not [1]"),
        ("[rates]\nspread = 0.1", "setting 'rates.spread' must be a decimal in quotes such as \"0.1\", not 0.1"),
        ('[logs]\nlevel = "loud"', "setting 'logs.level' must be one of `debug`, `info`, `warning`, `error`"),
        ("[rate_limits.default]\nwallet_per_2s = 0", "setting 'rate_limits.default.wallet_per_2s' must be an integer"),
        ("[assets.BTC]\nnumber = 1", "setting 'assets.BTC.name' is missing"),
    ],
)
def test_a_wrong_value_names_the_setting_and_what_it_takes(tmp_path: Path, text: str, expected: str) -> None:
    """An operator reads which setting is wrong, what it takes and what it got."""
    (found,) = problems(tmp_path, text)
    assert found.startswith(expected)


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    """One start shows every mistake of the file."""
    assert len(problems(tmp_path, 'port = "x"\nhost = 1\nunknown_thing = 2\n[rates]\necb = 3')) == 4


def test_a_file_that_is_no_toml_or_not_there_is_told_so(tmp_path: Path) -> None:
    """A broken or missing file is named."""
    assert "is not TOML" in problems(tmp_path, "port = ")[0]
    with pytest.raises(ConfigError, match="cannot read the settings file"):
        load_config(tmp_path / "absent.toml", {})


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    """A server finds its data wherever it is started from."""
    config = load(tmp_path, 'data = "books"\nmaster_key_file = "/etc/key"')
    assert config.folder == tmp_path / "books"
    assert config.admin_socket_path == tmp_path / "books" / "admin.sock"
    assert config.master_key_file == "/etc/key"


def test_declared_amounts_are_read_exactly(tmp_path: Path) -> None:
    """Amounts are texts in the asset's own decimals, rates parts of 10^8, and nothing is a float."""
    more = 'withdraw_minimum = "10.000001"\nwithdraw_fee = { minimum = "0.1", rate = "0.00000001", extra = "3" }\n'
    snapshot = snapshot_of(load(tmp_path, ASSETS + more))
    (offer,) = snapshot.offers
    assert (offer.asset, offer.network, offer.withdraw_minimum) == (2, 7, 10_000_001)
    assert offer.withdraw_fee == FeeFormula(minimum=100_000, rate_e8=1, extra=3_000_000)
    assert [asset.code for asset in snapshot.assets] == ["BTC", "USDT"]
    assert snapshot.networks[0].fee_asset == 1


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ('withdraw_minimum = "0.0000001"', "setting 'offers.USDT.ERC20.withdraw_minimum' is '0.0000001': it has too"),
        ("[offers.USDT.MARS]\ndecimals = 6", "'offers.USDT.MARS': 'MARS' is not among the networks"),
        ("[offers.DOGE.ERC20]\ndecimals = 6\ndefault = true", "setting 'offers.DOGE.ERC20' names 'DOGE', which"),
        ("[offers.BTC.ERC20]\ndecimals = 8", "'offers.BTC' must have one default network, not 0"),
        ('[assets.XRP]\nnumber = 1\nname = "XRP"', "setting 'assets.XRP.number' is BTC's number too"),
        ('[assets.XRP]\nnumber = 3\nname = "XRP"\nactions = ["FLY"]', "setting 'assets.XRP.actions' has FLY"),
    ],
)
def test_what_cannot_be_declared_is_told(tmp_path: Path, more: str, expected: str) -> None:
    """Amounts too fine, names that do not exist and numbers given twice are mistakes of the file."""
    (found,) = problems(tmp_path, ASSETS + more)
    assert found.startswith(expected)


def test_every_setting_says_what_it_is_for() -> None:
    """Each setting has a description, a type in words and a variable of its own."""
    found = all_settings()
    assert all(setting.description and setting.type and setting.default for setting in found)
    assert len({setting.variable for setting in found}) == len(found)
    assert "offers.<asset>.<network>.withdraw_fee.minimum" in {setting.name for setting in found}


def test_the_reference_page_is_what_the_settings_are() -> None:
    """The page in the docs is the one made from the declarations: write it anew with `make docs`."""
    assert (Path(__file__).parents[2] / "docs" / "reference" / "settings.md").read_text() == settings_page()


@pytest.mark.parametrize("text", ["00" * 32, "AA" * 32, "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n"])
def test_a_master_key_is_read_in_hex_or_base64(text: str) -> None:
    """The environment has the key in either spelling."""
    assert len(load_master_key(Config(), {"STRONGROOM_MASTER_KEY": text})) == 32


@pytest.mark.parametrize("text", ["00" * 31, "no key", "0" * 63, "é" * 32])
def test_what_is_no_master_key_is_not_shown(text: str) -> None:
    """A slip in the key is told without telling the key."""
    with pytest.raises(ConfigError) as caught:
        load_master_key(Config(), {"STRONGROOM_MASTER_KEY": text})
    assert text not in str(caught.value)


def test_a_master_key_file_belongs_to_its_owner_alone(tmp_path: Path) -> None:
    """A written key file is read again; once others may read it, it is refused."""
    path, key = tmp_path / "keys" / "master.key", bytes(range(32))
    write_master_key(path, key)
    config = Config(master_key_file=str(path))
    assert load_master_key(config, {}) == key
    path.chmod(0o640)
    with pytest.raises(ConfigError, match="chmod 600"):
        load_master_key(config, {})
    with pytest.raises(FileExistsError):
        write_master_key(path, key)


def test_a_missing_master_key_is_told(tmp_path: Path) -> None:
    """Without a key, or with a file that is not there, the operator reads what to set."""
    with pytest.raises(ConfigError, match="STRONGROOM_MASTER_KEY"):
        load_master_key(Config(), {})
    with pytest.raises(ConfigError, match="cannot read"):
        load_master_key(Config(master_key_file=str(tmp_path / "absent")), {})


def test_a_table_of_prices_is_as_old_as_its_file(tmp_path: Path) -> None:
    """Starting a server again does not make old prices young."""
    path = tmp_path / "settings.toml"
    path.write_text('[rates]\ntable = { "BTC/USDT" = "1" }')
    os.utime(path, (1_700_000_000, 1_700_000_000))
    assert load_config(path, {}).rates.table_as_of == "2023-11-14T22:13:20+00:00"
