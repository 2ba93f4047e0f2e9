"""The root of the command line, with the commands that start servers: `demo`, `serve`, `init`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from strongroom.cli.failures import expected_failures

if TYPE_CHECKING:
    from strongroom.demo.telling import Ready


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="strongroom")
def root() -> None:
    """Strongroom: a self-hosted exchange wallet on a double-entry ledger."""


@root.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option("--port", default=8080, show_default=True, type=click.IntRange(0, 65535), help="The port; 0: a free one.")
@click.option("--data", type=click.Path(file_okay=False, path_type=Path), help="Data folder; default: a temporary one.")
@click.option("--no-rate-limits", is_flag=True, help="Answer as fast as the machine can.")
@click.option(
    "--seconds-per-block",
    default=2.0,
    show_default=True,
    type=click.FloatRange(0, 31_536_000, min_open=True),
    help="Pace of the chains.",
)
@click.option("--chains", help="Chains on nodes of their own: bitcoin,litecoin,evm; default: all are simulated.")
@click.option(
    "--nodes",
    envvar="STRONGROOM_NODES",
    show_envvar=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder with the nodes' programs; default: what 'make nodes' has installed, or the path.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one line of JSON when ready, and nothing else.")
def demo(
    host: str,
    port: int,
    data: Path | None,
    no_rate_limits: bool,
    seconds_per_block: float,
    as_json: bool,
    chains: str | None,
    nodes: Path | None,
) -> None:
    """Start a complete server with practice chains, three customers, their money and a week of history.

    The chains are simulated but for those of --chains, whose nodes are started and stopped with the server.
    """
    from strongroom.demo.chains import read_chains
    from strongroom.demo.house import Opening
    from strongroom.demo.running import Chosen, run_demo
    from strongroom.demo.telling import greeting, json_line

    def tell(ready: Ready) -> None:
        print(json_line(ready) if as_json else greeting(ready), flush=True)

    opening = Opening(host, port, seconds_per_block, not no_rate_limits)
    with expected_failures():
        chosen = Chosen(None if chains is None else read_chains(chains), nodes)
        sys.exit(run_demo(data, opening, chosen, tell))


@root.command()
@click.option("--config", type=click.Path(dir_okay=False, path_type=Path), required=True, help="The settings file.")
def serve(config: Path) -> None:
    """Serve a data folder until a signal stops it."""
    from strongroom.admin.hosting import host_config
    from strongroom.config.settings import load_config
    from strongroom.observe.logs import configure_logs

    with expected_failures():
        settings = load_config(config, os.environ)
        configure_logs(settings.logs.level, settings.logs.format)
        sys.exit(host_config(settings, os.environ, lambda _: None))


@root.command()
@click.option(
    "--data",
    default="strongroom-data",
    show_default=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="The new data folder.",
)
@click.option(
    "--config", type=click.Path(dir_okay=False, path_type=Path), help="The new settings file; default: in the folder."
)
def init(data: Path, config: Path | None) -> None:
    """Write the settings file, the master key and the sealed seed of a new house."""
    from strongroom.admin.newhouse import make_house

    settings = config or data / "strongroom.toml"
    with expected_failures():
        words = make_house(settings, data)
    print(f"settings    {settings}", f"data        {data}", f"master key  {data / 'master.key'}", sep="\n")
    print("\nThe words of the seed: write them down, they stand nowhere else and are not shown again.\n")
    print(words)
    print(f"\nStart it with: strongroom serve --config {settings}")
