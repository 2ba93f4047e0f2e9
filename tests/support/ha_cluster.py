"""A database that fails over: three PostgreSQL nodes under Patroni and three etcd, on loopback, as an ordinary user.

Everybody talks to everybody else over a line of `Lines` that can be cut. `scripts/setup-ha.sh` installs the programs.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NamedTuple

import httpx
import psycopg
from psycopg.rows import TupleRow

from support.ha_lines import Lines
from support.nodes import free_port
from support.postgres import ordinary, programs

HOST: Final = "127.0.0.1"
COUNT: Final = 3
WAIT_S: Final = 180.0
"""How long a cluster may take to come up, or to be whole again: a member may have to be copied anew."""

POLL_S: Final = 0.2
ASK_S: Final = 2.0
TTL_S: Final = 20
"""How long a leader that is silent stays the leader: the least that Patroni allows."""

ENVIRONMENT: Final = Path(__file__).parents[2] / ".venv-ha"
DATABASE: Final = "strongroom"
STREAMING: Final = {"streaming", "running"}


class Missing(Exception):
    """A program is not installed."""


class Program:
    """A process as an ordinary user, its log beside its data; started and killed as often as one likes.

    A server that it has left to itself, as Patroni does, is known by `postmaster.pid` in a folder of the same name.
    """

    def __init__(
        self, name: str, folder: Path, command: Sequence[str], environ: Mapping[str, str] | None = None
    ) -> None:
        self.name = name
        self.log = folder / f"{name}.log"
        self._command = command
        self._data = folder / name
        self._environ = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", **(environ or {})}
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and do not wait for anything."""
        command = [*ordinary(signal.SIGTERM), *self._command]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self._environ, cwd="/"
            )

    @property
    def runs(self) -> bool:
        """Whether there is a process."""
        return self._process is not None and self._process.poll() is None

    @property
    def has_ended(self) -> bool:
        """Whether it ended of itself."""
        return self._process is not None and self._process.poll() is not None

    @property
    def family(self) -> list[int]:
        """The ids of its process and of all that it started."""
        own = [*_family(self._process.pid)] if self._process is not None and self.runs else []
        return own + self._left_to_itself()

    def _left_to_itself(self) -> list[int]:
        try:
            pid = int((self._data / "postmaster.pid").read_text().split("\n", 1)[0])
            is_ours = str(self._data).encode() in Path(f"/proc/{pid}/cmdline").read_bytes()
        except (OSError, ValueError):
            return []
        return [*_family(pid)] if is_ours else []

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to all of it."""
        for pid in self.family:
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def kill(self) -> None:
        """Kill all of it at once, as a loss of power would."""
        self.signal(signal.SIGSTOP)
        self.signal(signal.SIGKILL)
        if self._process is not None:
            self._process.wait(ASK_S * 10)
            self._process = None


class State(NamedTuple):
    """What Patroni says of the cluster: who leads, who is the leader's synchronous standby, who follows it at all."""

    leader: str = ""
    standby: str = ""
    followers: frozenset[str] = frozenset()


class Cluster:
    """etcd1 to etcd3 and pg1 to pg3; `synchronous` says whether a commit waits for a standby, whatever happens."""

    def __init__(self, lines: Lines, *, synchronous: bool = True) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="strongroom-ha-"))
        self.synchronous = synchronous
        self.etcds = [f"etcd{number}" for number in range(1, COUNT + 1)]
        self.members = [f"pg{number}" for number in range(1, COUNT + 1)]
        self.programs: dict[str, Program] = {}
        self.ports: dict[str, int] = {}
        self._lines = lines
        self._rest = {name: free_port() for name in self.members}
        self._client = httpx.AsyncClient(timeout=ASK_S)
        self._lay_out()

    def _lay_out(self) -> None:
        """Write every program's settings, and lay the lines between them."""
        site, python = _patroni()
        shutil.copytree(site, self.folder / "site")
        peers = {name: free_port() for name in self.etcds}
        for name in self.etcds:
            self.ports[name] = free_port()
            command = _etcd(name, self.folder, self.ports[name], peers)
            self.programs[name] = Program(name, self.folder, command)
        for name in self.members:
            self.ports[name] = free_port()
            config = self.folder / f"{name}.yml"
            # JSON is YAML as well.
            config.write_text(json.dumps(self._settings(name), indent=1))
            command = [python, "-m", "patroni", str(config)]
            environ = {"PYTHONPATH": str(self.folder / "site"), "PYTHONDONTWRITEBYTECODE": "1"}
            self.programs[name] = Program(name, self.folder, command, environ)
        if os.getuid() == 0:
            user = pwd.getpwnam("postgres")
            os.chown(self.folder, user.pw_uid, user.pw_gid)

    def _settings(self, name: str) -> dict[str, Any]:
        """Return Patroni's settings for a member: it reaches others, and they it, over lines."""
        hosts = [f"{HOST}:{self._lines.lay(name, etcd, self.ports[etcd])}" for etcd in self.etcds]
        server = f"{HOST}:{self._lines.lay('members', name, self.ports[name])}"
        rest = f"{HOST}:{self._lines.lay('members', f'{name} rest', self._rest[name])}"
        host_based = ["local all all trust", f"host all all {HOST}/32 trust", f"host replication all {HOST}/32 trust"]
        users = {"superuser": {"username": "postgres"}, "replication": {"username": "replicator"}}
        return {
            "scope": "strongroom",
            "name": name,
            "restapi": {"listen": f"{HOST}:{self._rest[name]}", "connect_address": rest},
            "etcd3": {"hosts": hosts, "use_proxies": True},
            "bootstrap": {"dcs": self._shared_settings(), "initdb": _INITDB},
            "postgresql": {
                "listen": f"{HOST}:{self.ports[name]}",
                "connect_address": server,
                "data_dir": str(self.folder / name),
                "bin_dir": str(programs()),
                "authentication": users,
                "pg_hba": host_based,
                "parameters": {"unix_socket_directories": str(self.folder)},
            },
        }

    def _shared_settings(self) -> dict[str, Any]:
        """Return the settings that Patroni keeps in etcd."""
        postgresql = {"use_pg_rewind": True, "use_slots": True, "parameters": _PARAMETERS}
        return {
            "ttl": TTL_S,
            "loop_wait": 2,
            "retry_timeout": 5,
            "maximum_lag_on_failover": 1 << 30,
            "synchronous_mode": self.synchronous,
            "synchronous_mode_strict": self.synchronous,
            "failsafe_mode": True,
            "postgresql": postgresql,
        }

    async def start(self) -> None:
        """Start everything, and return once the database of the house is there and the cluster is whole."""
        for name in self.etcds:
            self.programs[name].start()
        for name in self.etcds:
            await self._decided(name)
        for name in self.members:
            self.programs[name].start()
        with await self._connected() as connection:
            connection.execute(f"CREATE ROLE {DATABASE} LOGIN".encode())
            connection.execute(
                f"CREATE DATABASE {DATABASE} OWNER {DATABASE} ENCODING 'UTF8' TEMPLATE template0".encode()
            )

    async def _decided(self, etcd: str) -> None:
        """Return once an etcd knows the cluster's version, without which Patroni ends at once."""
        deadline_s = time.monotonic() + WAIT_S
        while True:
            with suppress(httpx.HTTPError, ValueError):
                told = (await self._client.get(f"http://{HOST}:{self.ports[etcd]}/version")).json()
                if told["etcdcluster"] != "not_decided":
                    return
            self._raise_if_late(deadline_s, f"{etcd} is not up")
            await asyncio.sleep(POLL_S)

    def _raise_if_late(self, deadline_s: float, what: str) -> None:
        ended = [name for name, program in self.programs.items() if program.has_ended]
        if ended or time.monotonic() > deadline_s:
            raise TimeoutError(f"{what}; ended of themselves: {ended}; logs are in {self.folder}")

    async def state(self) -> State:
        """Return who leads by the word of etcd, and what that member knows of the others; nothing if it is not up."""
        leader = await self._leader()
        if not leader:
            return State()
        try:
            told = (await self._client.get(f"http://{HOST}:{self._rest[leader]}/cluster")).json()
        except (httpx.HTTPError, ValueError):
            return State()
        state = state_of(told)
        # Patroni may still know another one than etcd.
        return state if state.leader == leader else State()

    async def _leader(self) -> str:
        """Return who holds the leader's key; nobody where there is no majority of etcd."""
        question = {"key": base64.b64encode(b"/service/strongroom/leader").decode()}
        for name in self.etcds:
            with suppress(httpx.HTTPError, ValueError):
                url = f"http://{HOST}:{self.ports[name]}/v3/kv/range"
                found = (await self._client.post(url, json=question)).json().get("kvs", [])
                return base64.b64decode(found[0]["value"]).decode() if found else ""
        return ""

    async def whole(self) -> State:
        """Return once there is a leader that all others follow, one of them synchronously where that is asked for."""
        deadline_s = time.monotonic() + WAIT_S
        while True:
            state = await self.state()
            if len(state.followers) == COUNT - 1 and (state.standby or not self.synchronous):
                return state
            self._raise_if_late(deadline_s, f"the cluster is not whole: {state}")
            await asyncio.sleep(POLL_S)

    async def _connected(self) -> psycopg.Connection[TupleRow]:
        """Return a connection of the superuser to the leader of a cluster that is whole."""
        state = await self.whole()
        server = f"host={HOST} port={self.ports[state.leader]} user=postgres"
        return psycopg.connect(f"{server} dbname=postgres", autocommit=True)

    async def caught_up(self) -> None:
        """Return once everybody who follows has all that is there now, the database itself to begin with."""
        deadline_s = time.monotonic() + WAIT_S
        with await self._connected() as connection:
            end = connection.execute("SELECT pg_current_wal_lsn()").fetchone()
            behind = b"SELECT count(*) FILTER (WHERE replay_lsn >= %s) FROM pg_stat_replication"
            while connection.execute(behind, end).fetchone() != (COUNT - 1,):
                self._raise_if_late(deadline_s, "the others have not caught up")
                await asyncio.sleep(POLL_S)

    async def led_by_another(self, old: str, within_s: float) -> float:
        """Return after how many seconds somebody else leads. Raises `TimeoutError`."""
        began_s = time.monotonic()
        while (leader := (await self.state()).leader) in {"", old}:
            if time.monotonic() - began_s > within_s:
                raise TimeoutError(f"nobody but {leader or 'none'} leads after {within_s:.0f} s")
            await asyncio.sleep(POLL_S)
        return time.monotonic() - began_s

    def revive(self) -> None:
        """Let go on what is stopped, and start what was killed."""
        for program in self.programs.values():
            program.signal(signal.SIGCONT)
            if not program.runs:
                program.start()

    async def stop(self) -> None:
        """Kill everything; nobody will look at the data again."""
        await self._client.aclose()
        for program in self.programs.values():
            program.kill()


def state_of(told: Any) -> State:
    """Read the answer of Patroni's `/cluster`; whoever does not follow, or not yet, is left out."""
    members = {member["name"]: member for member in told.get("members", [])}
    leader = next((name for name, it in members.items() if it["role"] == "leader" and it["state"] == "running"), "")
    follow = [name for name, it in members.items() if it["role"] != "leader" and it["state"] in STREAMING]
    standby = next((name for name in follow if members[name]["role"] in {"sync_standby", "quorum_standby"}), "")
    return State(leader, standby, frozenset(follow))


_INITDB: Final = [{"encoding": "UTF8"}, {"locale": "C"}, "data-checksums"]
_PARAMETERS: Final = {
    "max_connections": 100,
    "shared_buffers": "32MB",
    "wal_keep_size": "256MB",
    "max_wal_size": "256MB",
    "autovacuum_naptime": "60s",
    # A standby that is silent for so long is no standby: the leader names another.
    "wal_sender_timeout": "5s",
    "wal_receiver_timeout": "5s",
}


def _etcd(name: str, folder: Path, port: int, peers: Mapping[str, int]) -> list[str]:
    """Return the command of an etcd."""
    here, peer = f"http://{HOST}:{port}", f"http://{HOST}:{peers[name]}"
    cluster = ",".join(f"{other}=http://{HOST}:{peers[other]}" for other in peers)
    options = {
        "name": name,
        "data-dir": str(folder / name),
        "listen-client-urls": here,
        "advertise-client-urls": here,
        "listen-peer-urls": peer,
        "initial-advertise-peer-urls": peer,
        "initial-cluster": cluster,
        # A busy machine is no reason for an election.
        "heartbeat-interval": "200",
        "election-timeout": "2000",
    }
    program = shutil.which("etcd")
    if program is None:
        raise Missing("there is no etcd: run scripts/setup-ha.sh")
    return [program, *(f"--{name}={value}" for name, value in options.items())]


def _patroni() -> tuple[Path, str]:
    """Return the folder of Patroni's packages, and a Python that the database's user can run.

    The packages are copied to where that user can read them, wherever this project lies.
    """
    found = list(ENVIRONMENT.glob("lib/python3.*/site-packages"))
    if not found:
        raise Missing("there is no Patroni: run scripts/setup-ha.sh")
    return found[0], str((ENVIRONMENT / "bin" / "python").resolve())


def _family(pid: int) -> Iterator[int]:
    """Yield a process's id and those of all its descendants, parents first."""
    yield pid
    with suppress(FileNotFoundError, ProcessLookupError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                yield from _family(int(child))
