"""Processes: started on given cores, watched through /proc, and stopped by their id whatever happens."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

STOP_S = 20
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_USER_TICKS, _SYSTEM_TICKS, _PARENT = 11, 12, 1
"""Places in /proc/PID/stat after the command's name (proc(5))."""


class BenchError(Exception):
    """Something that the bench needs is missing or did not work; its text is for whoever runs it."""


def cores() -> tuple[int, int]:
    """Return the core of the server and that of the load. Raises `BenchError` on a machine with one core."""
    found = sorted(os.sched_getaffinity(0))
    if len(found) < 2:
        raise BenchError("two cores are needed: one for the server and one for the load")
    return found[0], found[1]


def free_port() -> int:
    """Return a port of the loopback address that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


@contextmanager
def started(
    command: Sequence[str],
    log: Path,
    on: Sequence[int] = (),
    environ: Mapping[str, str] | None = None,
    stop_with: signal.Signals = signal.SIGTERM,
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program on the given cores (empty: on all), its output in `log`, and stop it at the end."""
    pinned = ["taskset", "--cpu-list", ",".join(map(str, on))] if on else []
    with log.open("ab") as output:
        process = subprocess.Popen(
            [*pinned, *command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={**os.environ, **(environ or {})},
            # A Ctrl-C is for the bench alone, which then stops everything in order.
            start_new_session=True,
        )
    try:
        yield process
    finally:
        stop(process, stop_with)


def stop(process: subprocess.Popen[bytes], with_signal: signal.Signals = signal.SIGTERM) -> None:
    """End a process and wait for it; one that does not listen is killed, with all that it started."""
    if process.poll() is not None:
        return
    process.send_signal(with_signal)
    try:
        _ = process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        for pid in reversed(family(process.pid)):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        _ = process.wait(STOP_S)


def wait_until(answers: Iterator[bool], process: subprocess.Popen[bytes], log: Path, seconds: float = 60) -> float:
    """Ask until the answer is yes; return how many seconds it took. Raises `BenchError` with the end of the log."""
    began_s = time.perf_counter()
    while not next(answers):
        if process.poll() is not None or time.perf_counter() - began_s > seconds:
            raise BenchError(f"{process.args} did not start:\n{log.read_text()[-2000:]}")
        time.sleep(0.005)
    return time.perf_counter() - began_s


def family(pid: int) -> list[int]:
    """Return a process's id and those of all its descendants."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (fields := _stat(int(entry.name))):
            children.setdefault(int(fields[_PARENT]), []).append(int(entry.name))
    found = [pid]
    for member in found:
        found += children.get(member, [])
    return found


def pin(pid: int, on: Sequence[int]) -> None:
    """Move a process, its descendants and all their threads to the given cores; what they start later follows."""
    for member in family(pid):
        with suppress(FileNotFoundError):
            for thread in Path(f"/proc/{member}/task").iterdir():
                with suppress(ProcessLookupError):
                    os.sched_setaffinity(int(thread.name), on)


def cpu_s(*pids: int) -> float:
    """Return the seconds of CPU, user and system, that processes and their living descendants have used."""
    ticks = 0
    for member in {member for pid in pids for member in family(pid)}:
        if fields := _stat(member):
            ticks += int(fields[_USER_TICKS]) + int(fields[_SYSTEM_TICKS])
    return ticks / _TICKS_PER_S


def memory_mib(pid: int) -> tuple[float, float]:
    """Return a process's resident memory, now and at its highest, in MiB."""
    lines = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(lines["VmRSS"].split()[0]) / 1024, int(lines["VmHWM"].split()[0]) / 1024


def _stat(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []
