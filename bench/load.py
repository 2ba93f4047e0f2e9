"""The load: wrk on a core of its own, and what it and /proc say of a run."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
from pathlib import Path
from typing import NamedTuple

from processes import BenchError, cores, cpu_s

_SCRIPT = Path(__file__).parent / "replay.lua"
_MARK = "REPORT "


class Result(NamedTuple):
    """What a run measured; `cpu_us` is the server's CPU time for a request, `busy` the share of a core it took.

    `failures` counts replies that were not 2xx, connections that broke and requests without a reply.
    """

    per_second: float
    p50_ms: float
    p99_ms: float
    cpu_us: float
    busy: float
    failures: int


def need(program: str) -> str:
    """Return a program's path. Raises `BenchError` where it is missing."""
    found = shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if found is None:
        raise BenchError(f"{program} is missing: run scripts/setup-bench.sh as root, or install it")
    return found


def wrk_command(port: int, connections: int, seconds: float, requests: Path | None) -> list[str]:
    """Return the command that sends a file's requests, each once, or none's: wrk's own one, again and again."""
    _, core = cores()
    command = ["taskset", "--cpu-list", str(core), need("wrk"), "--threads", "1", "--connections", str(connections)]
    command += ["--duration", f"{max(1, round(seconds))}s", "--timeout", "10s", "--script", str(_SCRIPT)]
    return [*command, f"http://127.0.0.1:{port}/", *(["--", str(requests)] if requests else [])]


def run(port: int, connections: int, seconds: float, requests: Path | None, server_pids: tuple[int, ...]) -> Result:
    """Load a server and return what was measured."""
    before_s = cpu_s(*server_pids)
    command = wrk_command(port, connections, seconds, requests)
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=seconds + 60)
    used_s = cpu_s(*server_pids) - before_s
    report = next((line for line in done.stdout.splitlines() if line.startswith(_MARK)), None)
    if report is None:
        raise BenchError(f"wrk failed: {done.stdout}{done.stderr}")
    told = json.loads(report.removeprefix(_MARK))
    elapsed_s, answered = told["duration_us"] / 1e6, max(1, told["requests"])
    return Result(
        answered / elapsed_s,
        told["p50_us"] / 1e3,
        told["p99_us"] / 1e3,
        used_s / answered * 1e6,
        used_s / elapsed_s,
        told["refused"] + told["broken"] + told["timeouts"],
    )


def check_answer(port: int, request: bytes) -> bytes:
    """Send one request and return the body of its reply. Raises `BenchError` unless that is a 200."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(request.replace(b"\r\n", b"\r\nconnection: close\r\n", 1))
        reply = b"".join(iter(lambda: connection.recv(65_536), b""))
    head, _, body = reply.partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200 "):
        raise BenchError(f"a request was refused: {request[:120]!r} ... {reply[:600]!r}")
    return body
