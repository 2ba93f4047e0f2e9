"""Signed balance reads and durable transfers a second, with p50 and p99, at 1, 8 and 64 connections.

    make bench                    # or: .venv/bin/python bench/run.py --seconds 10

Server and load run on this machine, the load in this process; every transfer is signed with a nonce of its own and
durable before it is answered. Machines are noisy: read ratios within one run.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import uvloop
from load import Key, Nonces, Result, measure, request

STRONGROOM = str(Path(sys.executable).with_name("strongroom"))
CONNECTIONS = (1, 8, 64)
KEYS = 16
READ_PATH = "/spot/api/v3.2/user/wallet"
TRANSFER_PATH = "/spot/api/v3.2/user/wallet/transfer"
TRANSFER = b'{"amount":"0.00000001","asset":"BTC","toUser":"bob","toUserMail":"bob@example.com"}'


def start_server(folder: Path) -> tuple[subprocess.Popen[str], dict[str, object]]:
    """Start the demo without rate limits and return its process and what it says once it is ready."""
    arguments = ["demo", "--json", "--port", "0", "--no-rate-limits", "--seconds-per-block", "60", "--data"]
    server = subprocess.Popen([STRONGROOM, *arguments, str(folder)], stdout=subprocess.PIPE, text=True)
    if server.stdout is None:
        raise RuntimeError("the server's output is a pipe")
    return server, json.loads(server.stdout.readline())


def make_keys(folder: Path) -> list[Key]:
    """Return keys of alice, made through the running server: one key has a thousand nonces a second and no more."""
    made = [
        _strongroom(
            "key",
            "create",
            "alice",
            "--permission",
            "Read",
            "--permission",
            "Transfer",
            "--json",
            "--data",
            str(folder),
        )
        for _ in range(KEYS)
    ]
    return [Key(key["key"], key["secret"]) for key in made]


def _strongroom(*arguments: str) -> dict[str, str]:
    done = subprocess.run([STRONGROOM, *arguments], check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


def requests_of(keys: list[Key]) -> dict[str, Callable[[], bytes]]:
    """Return what makes the requests of each kind."""
    nonces = Nonces(keys)
    return {
        "signed balance reads": lambda: request(*nonces.take(), "GET", READ_PATH),
        "durable transfers": lambda: request(*nonces.take(), "POST", TRANSFER_PATH, TRANSFER),
    }


def show(kind: str, connections: int, result: Result) -> None:
    """Print a row of the table."""
    failed = f"  {result.failures} failed" if result.failures else ""
    row = f"{kind:22} {connections:4} {result.per_second:10,.0f} {result.p50_ms:9.2f} {result.p99_ms:9.2f}{failed}"
    print(row, flush=True)


async def main(seconds: float) -> int:
    """Measure every kind at every number of connections; return how many requests failed."""
    failures = 0
    with tempfile.TemporaryDirectory(prefix="strongroom-bench-", dir=".") as folder:
        data = Path(folder) / "data"
        server, ready = start_server(data)
        try:
            print(f"{'':22} {'conn':>4} {'a second':>10} {'p50 ms':>9} {'p99 ms':>9}")
            for kind, make in requests_of(make_keys(data)).items():
                for connections in CONNECTIONS:
                    result = await measure(str(ready["base_url"]), make, connections, seconds)
                    show(kind, connections, result)
                    failures += result.failures
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait(timeout=30)
    return failures


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Measure signed reads and durable transfers.")
    parser.add_argument("--seconds", type=float, default=5, help="how long each row is measured")
    sys.exit(1 if uvloop.run(main(parser.parse_args().seconds)) else 0)
