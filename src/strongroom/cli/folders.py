"""Which house a command means: by its settings file, by its data folder, or the one that is found nearby."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import click

from strongroom.admin.protocol import AdminError, Request
from strongroom.admin.telephone import NoServer, ask_server
from strongroom.cli.failures import expected_failures

if TYPE_CHECKING:
    from strongroom.config.settings import Config

CONFIG_FILE: Final = "strongroom.toml"
DEFAULT_FOLDER: Final = "strongroom-data"
SOCKET_FILE: Final = "admin.sock"
DEMO_KEYS_FILE: Final = "demo.json"
VARIABLE: Final = "STRONGROOM_CONFIG"


class Place(NamedTuple):
    """A house: its settings file if it has one, and its data folder if that is all that was said."""

    config: Path | None
    data: Path | None


def find_place(config: Path | None, data: Path | None) -> Place:
    """Return the house that the options name, or else the environment or the current folder. Raises `UsageError`."""
    if config is not None:
        return Place(config, None)
    if data is not None:
        inside = data / CONFIG_FILE
        return Place(inside if inside.exists() else None, data)
    if named := os.environ.get(VARIABLE):
        return Place(Path(named), None)
    for nearby in (Path(CONFIG_FILE), Path(DEFAULT_FOLDER) / CONFIG_FILE):
        if nearby.exists():
            return Place(nearby, None)
    raise click.UsageError("say which house: --data DIR or --config FILE")


def data_folder(place: Place) -> Path:
    """Return the data folder of a house. Raises `ConfigError`."""
    if place.data is not None:
        return place.data
    return _settings(place).folder


def settings_of(place: Place) -> Config:
    """Return the settings of a house; those of a bare data folder are the defaults. Raises `ConfigError`."""
    if place.data is not None and place.config is None:
        from strongroom.config.settings import Config

        return Config(data=str(place.data))
    return _settings(place)


def carry_out(place: Place, request: Request, alone: Request | None = None) -> Any:
    """Return the result of a request, from the running server if there is one, else from the house itself.

    `alone` is what is asked of the house itself, if that is another request. The result is made of plain dicts and
    lists. What goes wrong is told, and ends the program.
    """
    with expected_failures():
        socket = place.data / SOCKET_FILE if place.config is None and place.data else _settings(place).admin_socket_path
        try:
            return ask_server(socket, request)
        except NoServer:
            return _carry_out_alone(place, alone or request)


def _carry_out_alone(place: Place, request: Request) -> Any:
    """Open the house for this one request."""
    import asyncio

    from strongroom.admin.hosting import carry_out_alone
    from strongroom.config.secrets import load_master_key
    from strongroom.observe.logs import configure_logs

    configure_logs("error", "console")
    if place.config is None and place.data and (place.data / DEMO_KEYS_FILE).is_file():
        from strongroom.demo.running import carry_out_in_demo

        return asyncio.run(carry_out_in_demo(place.data.absolute(), request))
    settings = _settings(place)
    environ: Mapping[str, str] = {} if place.config is None else os.environ
    return asyncio.run(carry_out_alone(settings, load_master_key(settings, environ), request))


def _settings(place: Place) -> Any:
    """Return the settings of a house. Raises `ConfigError`, and `AdminError` where nobody knows them."""
    if place.config is not None:
        from strongroom.config.settings import load_config

        return load_config(place.config, os.environ)
    folder = place.data or Path()
    if (folder / DEMO_KEYS_FILE).is_file():
        from strongroom.demo.running import resting_config

        return resting_config(folder.absolute())
    raise AdminError(f"{folder} has no house: neither a server, nor {CONFIG_FILE}, nor a demo")
