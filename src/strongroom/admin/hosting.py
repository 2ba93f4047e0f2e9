"""Hosting: a house with all its doors, for as long as a server runs, and for one command where none does."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec

from strongroom.admin.commands import carry_out
from strongroom.admin.prices import apply_kept_prices
from strongroom.admin.protocol import AdminError, Request
from strongroom.admin.socket import admin_socket
from strongroom.application import Application
from strongroom.config.secrets import load_master_key
from strongroom.config.settings import Config
from strongroom.custody.outside import Outside
from strongroom.serving import bind, run, serve


async def host(
    config: Config, master_key: bytes, on_ready: Callable[[str], None], outside: Mapping[str, Outside] | None = None
) -> int:
    """Serve a data folder, its operator's socket included, until a signal; return the process's exit code.

    `on_ready` is told the base URL; `outside` is for a demo's nodes. Raises `ConfigError`, `StoreError`, `AdminError`,
    and `OSError` for files and addresses that the system refuses.
    """
    check_address(config.host, config.port)
    application = Application(config, master_key, outside=outside)
    async with application.running():
        apply_kept_prices(application)
        async with admin_socket(application):
            return await serve(application, on_ready)


async def carry_out_alone(
    config: Config, master_key: bytes, request: Request, outside: Mapping[str, Outside] | None = None
) -> Any:
    """Open a data folder that no server has open, carry out one request, close it, and return plain dicts and lists.

    Raises `ConfigError`, `StoreError` (`DataFolderBusy` beside a server), `AdminError`.
    """
    application = Application(config, master_key, outside=outside)
    async with application.running():
        apply_kept_prices(application)
        return msgspec.to_builtins(await carry_out(application, request))


def check_address(host_name: str, port: int) -> None:
    """Raise `AdminError` if the address cannot be bound: better known before the books are opened."""
    try:
        bind(host_name, port).close()
    except OSError as error:
        raise AdminError(f"cannot listen on {host_name}:{port}: {error.strerror}") from None


def host_config(config: Config, environ: Mapping[str, str], on_ready: Callable[[str], None]) -> int:
    """Serve a data folder; what `strongroom serve` does. Raises as `host`."""
    master_key = load_master_key(config, environ)
    return run_until_stopped(lambda: host(config, master_key, on_ready))


def run_until_stopped(main: Callable[[], Awaitable[int]]) -> int:
    """Run a server's main coroutine; a signal that comes before it serves ends it as cleanly as one after."""

    async def guarded() -> int:
        task = asyncio.ensure_future(main())
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, task.cancel)
        try:
            return await task
        except asyncio.CancelledError:
            return 0

    return run(guarded())
