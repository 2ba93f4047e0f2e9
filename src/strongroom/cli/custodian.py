"""The custodian's commands: the vault that holds the seed, and the signer that is a process of its own."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import click

from strongroom.cli.failures import expected_failures, fail
from strongroom.cli.root import root
from strongroom.cli.showing import show

if TYPE_CHECKING:
    from strongroom.config.settings import Config
    from strongroom.custody.families import Network
    from strongroom.custody.offline import Unsigned
    from strongroom.custody.signer import Scheme
    from strongroom.custody.signing_service import SigningService
    from strongroom.custody.token import TokenKey

KEY_LABEL: Final = "strongroom-vault"
MAX_SECRET_BYTES: Final = 4_096
"""A file with a passphrase, a PIN or the words has at most so many bytes."""

_ENTROPY_BYTES: Final = 32
_FILE: Final = click.Path(dir_okay=False, path_type=Path)
_FOLDER: Final = click.Path(file_okay=False, path_type=Path)
_DATA: Final = click.option("--data", type=_FOLDER, required=True, help="The data folder.")
_CONFIG: Final = click.option("--config", type=_FILE, help="The house's settings, for the networks that have nodes.")


class Opening(NamedTuple):
    """How a vault is opened: by a passphrase (asked for without a file), or by a key in a token."""

    passphrase_file: Path | None
    pkcs11_module: str | None
    token_label: str | None
    key_label: str
    pin_file: Path | None

    def token(self) -> TokenKey | None:
        """Return the token's key; None where a passphrase is meant. Raises `UsageError`."""
        if self.pkcs11_module is None:
            if self.token_label or self.pin_file:
                raise click.UsageError("a token needs --pkcs11-module")
            return None
        if self.passphrase_file or not self.token_label:
            raise click.UsageError("a token needs --token-label, and no --passphrase-file")
        from strongroom.custody.token import TokenKey

        pin = _secret(self.pin_file, "The token's PIN", confirm=False)
        return TokenKey(self.pkcs11_module, self.token_label, pin, self.key_label)


def _opening_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of `Opening`, as one argument `opening`."""

    def with_opening(**values: Any) -> None:
        opening = Opening(**{name: values.pop(name) for name in Opening._fields})
        command(opening=opening, **values)

    with_opening.__name__, with_opening.__doc__ = command.__name__, command.__doc__
    for option in (
        click.option("--pin-file", type=_FILE, help="A file with the token's PIN; default: it is asked for."),
        click.option("--key-label", default=KEY_LABEL, show_default=True, help="The label of the token's key."),
        click.option("--token-label", help="The label of the token that holds the vault's key."),
        click.option("--pkcs11-module", help="The token's PKCS#11 library; without it a passphrase opens the vault."),
        click.option("--passphrase-file", type=_FILE, help="A file with the passphrase; default: it is asked for."),
    ):
        with_opening = option(with_opening)
    # What another decorator has put on the command stays on it.
    with_opening.__dict__.setdefault("__click_params__", []).extend(command.__dict__.get("__click_params__", []))
    return with_opening


@root.group()
def vault() -> None:
    """The vault: the seed of every key, encrypted in a file."""


@vault.command("init")
@_opening_options
@_DATA
@_CONFIG
@click.option("--words-file", type=_FILE, help="A file with the words of a seed; default: new ones, printed once.")
def vault_init(data: Path, config: Path | None, words_file: Path | None, opening: Opening) -> None:
    """Make a vault and the file of its public keys; nothing is overwritten."""
    from strongroom.chains import specs_of
    from strongroom.custody.vault import VAULT_FILE
    from strongroom.custody.xpubs import XPUBS_FILE, encode_public_keys, public_keys_of
    from strongroom.files import write_new

    with _failures():
        for path in (data / VAULT_FILE, data / XPUBS_FILE):
            if path.exists():
                fail(f"{path} is there already, and nothing is overwritten")
        specs = specs_of(_settings(config))
        words = _words(words_file)
        seed = _seed(words)
        content = _sealed(seed, opening)
        data.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_new(data / VAULT_FILE, content)
        write_new(data / XPUBS_FILE, encode_public_keys(public_keys_of(seed, specs)))
    print(f"vault        {data / VAULT_FILE}", f"public keys  {data / XPUBS_FILE}", sep="\n")
    if words_file is None:
        print("\nThe words of the seed: write them down, they stand nowhere else and are not shown again.\n")
        print(words)


def _settings(path: Path | None) -> Config | None:
    """Return the settings of a file, None without one. Raises `ConfigError`."""
    import os

    from strongroom.config.settings import load_config

    return None if path is None else load_config(path, os.environ)


def _words(path: Path | None) -> str:
    """Return the words of a file, or new ones."""
    from strongroom.clock import Clock, Ids
    from strongroom.custody.derivation import new_mnemonic

    if path is None:
        return new_mnemonic(Ids(Clock()).random_bytes(_ENTROPY_BYTES))
    return " ".join(_read_text(path).split())


def _seed(words: str) -> bytes:
    from strongroom.custody.derivation import seed_of

    try:
        return seed_of(words)
    except ValueError as error:
        fail(f"the words are not a seed's: {error}")


def _sealed(seed: bytes, opening: Opening) -> bytes:
    """Return the vault file's content; a token gets a key for it first."""
    from strongroom.clock import Clock, Ids
    from strongroom.custody.vault import seal_with_passphrase, seal_with_token

    ids, token = Ids(Clock()), opening.token()
    if token is None:
        return seal_with_passphrase(seed, _secret(opening.passphrase_file, "A passphrase", confirm=True), ids)
    token.generate()
    return seal_with_token(seed, token, ids)


@vault.command("show")
@_DATA
@click.option("--json", "as_json", is_flag=True, help="Print one line of JSON.")
def vault_show(data: Path, as_json: bool) -> None:
    """Show what opens the vault, and the public keys of each network; nothing secret."""
    from strongroom.custody.vault import VAULT_FILE, PassphraseLock, lock_of
    from strongroom.custody.xpubs import XPUBS_FILE, read_public_keys

    with _failures():
        lock = lock_of(_read_vault(data / VAULT_FILE))
        keys = read_public_keys(data / XPUBS_FILE)
    if isinstance(lock, PassphraseLock):
        opened_by = "a passphrase"
    else:
        opened_by = f"the key {lock.key_label} in the token {lock.token_label}"
    networks = [
        {"network": code, "xpub": network.xpub, "hot_public_key": network.hot_public_key}
        for code, network in keys.networks.items()
    ]
    if as_json:
        show({"opened_by": opened_by, "networks": networks}, as_json=True)
        return
    print(f"opened by {opened_by}")
    show(networks, as_json=False)


@vault.command("passphrase")
@_DATA
@click.option("--passphrase-file", type=_FILE, help="A file with the passphrase as it is; default: it is asked for.")
@click.option("--new-passphrase-file", type=_FILE, help="A file with the new passphrase; default: it is asked for.")
def vault_passphrase(data: Path, passphrase_file: Path | None, new_passphrase_file: Path | None) -> None:
    """Change the vault's passphrase; the old file opens with the old one for whoever has a copy of it."""
    from strongroom.clock import Clock, Ids
    from strongroom.custody.vault import VAULT_FILE, open_with_passphrase, seal_with_passphrase
    from strongroom.files import write_over

    path = data / VAULT_FILE
    with _failures():
        content = _read_vault(path)
        seed = open_with_passphrase(content, _secret(passphrase_file, "The passphrase", confirm=False))
        fresh = _secret(new_passphrase_file, "The new passphrase", confirm=True)
        write_over(path, seal_with_passphrase(seed, fresh, Ids(Clock())))
    print("the passphrase is changed")


@vault.command("sign")
@_opening_options
@_DATA
@_CONFIG
@click.option("--yes", is_flag=True, help="Sign without asking.")
@click.argument("file", type=_FILE)
def vault_sign(file: Path, data: Path, config: Path | None, yes: bool, opening: Opening) -> None:
    """Sign the payment in FILE with the vault's keys and write FILE.signed; no server, node or network is needed.

    What is shown is made from what will be signed, and a FILE that says anything else is refused.
    """
    from strongroom.custody import offline
    from strongroom.files import write_new

    with _failures():
        target = file.with_name(f"{file.name}.signed")
        if target.exists():
            fail(f"{target} is there already, and nothing is overwritten")
        if config is None:
            click.echo("without --config, all networks are taken for simulated ones", err=True)
        payment = offline.decode(_read_bytes(file, offline.MAX_FILE_BYTES))
        network, scheme = _signing_of(payment.network, data, _settings(config), opening)
        _show_payment(offline.checked(payment, network, scheme))
        if not yes and not click.confirm("Sign this?", err=True):
            fail("nothing was signed")
        write_new(target, offline.encode_signed(offline.sign(payment, network, scheme)))
    print(f"signed   {target}")


def _signing_of(code: str, data: Path, settings: Config | None, opening: Opening) -> tuple[Network, Scheme]:
    """Return a network, and how the vault signs its payments."""
    from strongroom.chains import schemes_of, specs_of
    from strongroom.custody.vault import VAULT_FILE

    specs = {spec.id: spec for spec in specs_of(settings)}
    if code not in specs:
        fail(f"there is no network {code} here: --config names the settings that have its node")
    return specs[code], schemes_of(_open_vault(data / VAULT_FILE, opening), settings)[code]


def _show_payment(payment: Unsigned) -> None:
    print(f"network  {payment.network}")
    for paid in payment.pays:
        print(f"to       {paid.to}" + (f" with the tag {paid.tag}" if paid.tag else ""))
        print(f"amount   {paid.amount} {paid.asset}")
    print(f"fee      {payment.fee} native at most")
    print(f"as the file says: payment {payment.payment} ({payment.kind})")


@root.command()
@_opening_options
@_DATA
@_CONFIG
@click.option("--vault", "vault_folder", type=_FOLDER, help="The folder of the vault; default: the data folder.")
@click.option("--state", type=_FOLDER, required=True, help="The signer's folder: caps.toml, and what it has signed.")
@click.option("--socket", "socket_path", type=_FILE, required=True, help="The socket to listen on.")
@click.option("--socket-group", default="", help="A group whose members may talk to the signer, too.")
def signer(
    data: Path,
    config: Path | None,
    vault_folder: Path | None,
    state: Path,
    socket_path: Path,
    socket_group: str,
    opening: Opening,
) -> None:
    """Sign the payments that the books reserve, below the caps of caps.toml, until a signal stops it."""
    from strongroom.chains import schemes_of
    from strongroom.custody.vault import VAULT_FILE
    from strongroom.observe.logs import configure_logs

    with _failures():
        configure_logs()
        settings = _settings(config)
        seed = _open_vault((vault_folder or data) / VAULT_FILE, opening)
        _serve(_books_at(data, settings), state, socket_path, socket_group, schemes_of(seed, settings))


def _open_vault(path: Path, opening: Opening) -> bytes:
    from strongroom.custody.vault import open_with_passphrase, open_with_token

    content, token = _read_vault(path), opening.token()
    if token is not None:
        return open_with_token(content, token)
    return open_with_passphrase(content, _secret(opening.passphrase_file, "The passphrase", confirm=False))


def _books_at(data: Path, settings: Config | None) -> Config:
    """Return where the books are: in the database of the settings, or in the data folder."""
    from strongroom.config.settings import Config

    return Config(data=str(data), store=settings.store if settings else "")


def _serve(books: Config, state: Path, socket_path: Path, group: str, schemes: dict[str, Scheme]) -> None:
    import asyncio
    from contextlib import closing

    from strongroom.books import open_snapshot
    from strongroom.clock import Clock
    from strongroom.custody.policy import Judge, read_caps
    from strongroom.custody.signed_log import SignedLog
    from strongroom.custody.signing_service import SigningService

    caps = read_caps(state / "caps.toml")
    with closing(SignedLog(state)) as log:
        judge = Judge(lambda: open_snapshot(books, living=True), schemes, caps, log, Clock())
        asyncio.run(_listen(socket_path, SigningService(judge), group))


async def _listen(socket_path: Path, service: SigningService, group: str) -> None:
    import asyncio
    import signal

    from strongroom.custody.signing_service import signing_socket

    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    async with signing_socket(socket_path, service, group):
        print(f"listening on {socket_path}", flush=True)
        _ = await stopped.wait()


@contextmanager
def _failures() -> Generator[None]:
    """Turn what may go wrong with a vault or a signer into a line on standard error."""
    from strongroom.custody.chain import Rejected
    from strongroom.custody.offline import OfflineError
    from strongroom.custody.policy import CapsError
    from strongroom.custody.signed_log import SignedLogError
    from strongroom.custody.signing_service import SocketError
    from strongroom.custody.vault import VaultError
    from strongroom.custody.xpubs import PublicKeysError

    with expected_failures():
        try:
            yield
        except (VaultError, PublicKeysError, CapsError, SignedLogError, SocketError, OfflineError) as error:
            fail(str(error))
        except Rejected as reason:
            fail(f"this is not signed: {reason}")


def _read_vault(path: Path) -> bytes:
    from strongroom.custody.vault import MAX_FILE_BYTES

    return _read_bytes(path, MAX_FILE_BYTES)


def _read_bytes(path: Path, most: int) -> bytes:
    """Return a file's content, and of one that is larger than `most` bytes enough to see that it is."""
    with path.open("rb") as file:
        return file.read(most + 1)


def _read_text(path: Path) -> str:
    with path.open("rb") as file:
        content = file.read(MAX_SECRET_BYTES + 1)
    if len(content) > MAX_SECRET_BYTES:
        fail(f"{path} is larger than {MAX_SECRET_BYTES} bytes")
    try:
        return content.decode()
    except UnicodeDecodeError:
        fail(f"{path} is not a text")


def _secret(path: Path | None, prompt: str, *, confirm: bool) -> str:
    """Return a secret: a file's text without its last line's end, or what is typed unseen."""
    if path is None:
        return click.prompt(prompt, hide_input=True, confirmation_prompt=confirm, err=True)
    return _read_text(path).removesuffix("\n").removesuffix("\r")
