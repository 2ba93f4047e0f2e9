"""Demos as tools start them: the program in a process of its own, ready when it says so, and stopped or killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Final, NamedTuple

from click.testing import CliRunner

from strongroom.cli.main import root
from support.client import V3, ApiClient, Credentials

STRONGROOM: Final = (sys.executable, "-m", "strongroom.cli.main")
STOPS_WITHIN_S: Final = 20
_OF_THE_MOMENT: Final = ("timestamp", "orderId", "txId", "txid", "toAddress")
_SOURCE: Final = Path(__file__).parents[2] / "src"


class Ran(NamedTuple):
    """What became of a command."""

    code: int
    out: str
    err: str


def environment() -> dict[str, str]:
    """Return an environment in which the program is found, and no setting of the caller's."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith("STRONGROOM_")}
    return ours | {"PYTHONPATH": str(_SOURCE)}


def run(*arguments: str | Path, timeout_s: float = 60) -> Ran:
    """Run a command in a process of its own."""
    command = [*STRONGROOM, *map(str, arguments)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, env=environment(), check=False)
    return Ran(ended.returncode, ended.stdout, ended.stderr)


def invoke(*arguments: str | Path, typed: str | None = None) -> Ran:
    """Run a command in this process, which is quicker; `typed` is what stands on its standard input."""
    result = CliRunner().invoke(root, [*map(str, arguments)], input=typed, prog_name="strongroom")
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Ran(result.exit_code, result.stdout, result.stderr)


def invoke_json(*arguments: str | Path) -> Any:
    """Run a command that must succeed, and return what it prints as JSON."""
    ran = invoke(*arguments, "--json")
    assert ran.code == 0, ran.err
    return json.loads(ran.out)


class Demo:
    """A running demo: its process, and the line of JSON it printed."""

    def __init__(self, process: subprocess.Popen[str], ready: Mapping[str, Any], errors: Path) -> None:
        self.process = process
        self.ready = ready
        self.errors = errors
        self.url: str = ready["base_url"]
        self.folder = Path(ready["data"])
        self.users: dict[str, dict[str, Any]] = {user["username"]: user for user in ready["users"]}

    def client(self, username: str) -> ApiClient:
        """Return a client with the key that the demo gave a user."""
        user = self.users[username]
        return ApiClient(self.url, Credentials(user["api_key"], user["api_secret"]))

    def ask(self, *arguments: str) -> Any:
        """Run an operator's command beside the server, and return what it prints as JSON."""
        return invoke_json(*arguments, "--data", self.folder)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> tuple[int, str]:
        """Stop it; return its exit code and what else it has printed on standard output."""
        self.process.send_signal(number)
        rest, _ = self.process.communicate(timeout=STOPS_WITHIN_S)
        return self.process.returncode, rest

    def kill(self) -> None:
        """Kill it, as a loss of power would."""
        self.process.kill()
        self.process.communicate(timeout=STOPS_WITHIN_S)


def history_of(demo: Demo, username: str) -> list[dict[str, Any]]:
    """Return a user's history, the newest first, without what names a moment, a transaction or an address."""
    client = demo.client(username)
    rows: list[dict[str, Any]] = client.get(f"{V3}user/wallet_history").json()
    client.close()
    return [{name: value for name, value in row.items() if name not in _OF_THE_MOMENT} for row in rows]


def launch(folder: Path, errors: Path, *options: str) -> subprocess.Popen[str]:
    """Start a demo on a folder without waiting for it."""
    command = [*STRONGROOM, "demo", "--port", "0", "--data", str(folder), *options]
    with errors.open("a") as log:
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, env=environment())


def output(process: subprocess.Popen[str]) -> IO[str]:
    """Return a process's standard output."""
    assert process.stdout is not None
    return process.stdout


@contextmanager
def running(folder: Path, *options: str, pace_s: str = "0.2") -> Iterator[Demo]:
    """Run a demo without rate limits until the block ends."""
    errors = folder.with_name(f"{folder.name}.log")
    process = launch(folder, errors, "--json", "--no-rate-limits", "--seconds-per-block", pace_s, *options)
    try:
        line = output(process).readline()
        assert line.endswith("\n"), errors.read_text()
        yield Demo(process, json.loads(line), errors)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(STOPS_WITHIN_S)
        output(process).close()
