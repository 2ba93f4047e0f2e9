"""The route to a database: in which order its servers are tried.

A server that hangs takes a connection and says nothing, so that each new one waits for it in vain. Where it stands
first among the hosts, whatever has to be connected anew after a failover would do that; but one has found the new
leader already, and the others may go straight there.
"""

from __future__ import annotations

from psycopg.conninfo import conninfo_to_dict, make_conninfo

_LISTS = ("host", "hostaddr", "port")


class Route:
    """The servers that libpq's `conninfo` names, and which of them was found to serve last; for any thread."""

    def __init__(self, conninfo: str) -> None:
        self._given = conninfo
        self._served: tuple[str, str] | None = None

    def note(self, host: str, port: int) -> None:
        """Note where there is a server that serves."""
        self._served = (host, str(port))

    @property
    def straight(self) -> str:
        """The servers, the one that served last first."""
        return self._ordered(is_first=True)

    @property
    def around(self) -> str:
        """The servers, the one that served last behind all others: for whoever has lost it."""
        return self._ordered(is_first=False)

    def _ordered(self, *, is_first: bool) -> str:
        parts = conninfo_to_dict(self._given)
        lists = {name: str(parts[name]).split(",") for name in _LISTS if parts.get(name)}
        count = max(map(len, lists.values()), default=1)
        servers = [{name: each[at % len(each)] for name, each in lists.items()} for at in range(count)]
        host, port = self._served or ("", "")
        ours = [it for it in servers if it.get("host") == host and it.get("port", port) == port]
        others = [it for it in servers if it not in ours]
        if not ours or not others:
            return self._given
        found = [*ours, *others] if is_first else [*others, *ours]
        return make_conninfo(self._given, **{name: ",".join(it[name] for it in found) for name in lists})
