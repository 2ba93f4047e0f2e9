"""Our server under load, started as an operator starts it."""

from __future__ import annotations

import http.client
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from load import Result, check_answer, run
from processes import cores, free_port, started, wait_until
from signing import Signer, reads, tour, transfers, write
from world import World

STRONGROOM = str(Path(sys.executable).with_name("strongroom"))
_WARM_UP_S = 2.0
_WARM_UP_REQUESTS = 100_000
_LONGEST_S = 20.0
_SPARE = 2.5
"""How many more requests are signed than the warm-up says will be sent."""

Requests = Callable[[Signer], Iterator[bytes]]


class Server:
    """A running server, and the signer of the requests to it. `ready_s` is how long its start took."""

    def __init__(self, world: World, process: subprocess.Popen[bytes], port: int, ready_s: float) -> None:
        """`beside` are the processes whose CPU time counts as well."""
        self.beside: tuple[int, ...] = ()
        self.world = world
        self.port = port
        self.pid = process.pid
        self.ready_s = ready_s
        self.signer = Signer()
        self.requests_file = world.folder / "requests"
        self._process = process

    def kill(self) -> None:
        """End it as a power failure would."""
        os.kill(self.pid, signal.SIGKILL)
        _ = self._process.wait()

    def measure(
        self, make: Requests, connections: int, seconds: float, warm_up_requests: int = _WARM_UP_REQUESTS
    ) -> Result:
        """Return what a run of such requests measured, after a short one that says how many there will be."""
        requests = make(self.signer)
        warmed = self.load(requests, connections, _WARM_UP_S, warm_up_requests)
        return self.load(requests, connections, seconds, round(warmed.per_second * seconds * _SPARE) + 1_000)

    def see_everyone(self, connections: int) -> None:
        """Let every customer read and pay once, so that what follows is not about reading from disk."""
        wanted, seconds, answered = 2 * len(self.world.customers), _WARM_UP_S, 0.0
        while answered < wanted and seconds < _LONGEST_S:
            per_second = self.load(tour(self.world, self.signer), connections, seconds, _WARM_UP_REQUESTS).per_second
            answered, seconds = per_second * seconds, wanted / per_second * _SPARE

    def load(self, requests: Iterator[bytes], connections: int, seconds: float, count: int) -> Result:
        """Sign so many requests, see that one of their kind succeeds, and send them."""
        _ = check_answer(self.port, write(self.requests_file, requests, self.signer, count))
        return run(self.port, connections, seconds, self.requests_file, (self.pid, *self.beside))


@contextmanager
def serving(world: World, *, anywhere: bool = False) -> Iterator[Server]:
    """Serve a house on the server's core, or on all, until the end of the block."""
    port, log = free_port(), world.folder / "server.log"
    command = [STRONGROOM, "serve", "--config", str(world.config)]
    with started(command, log, () if anywhere else cores()[:1], {"STRONGROOM_PORT": str(port)}) as process:
        ready_s = wait_until(_ready(port), process, log)
        yield Server(world, process, port, ready_s)


def _ready(port: int) -> Iterator[bool]:
    """Yield whether the server says that it takes requests."""
    while True:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=1)
        try:
            connection.request("GET", "/readyz")
            yield connection.getresponse().status == 200
        except OSError:
            yield False
        finally:
            connection.close()


def kinds(world: World) -> dict[str, Requests]:
    """Return what makes the requests of each row."""
    return {
        "balance reads": lambda signer: reads(world, signer),
        "transfers": lambda signer: transfers(world, signer),
        "transfers with Idempotency-Key": lambda signer: transfers(world, signer, idempotent=True),
    }
