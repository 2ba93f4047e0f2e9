"""A PostgreSQL that takes nobody who comes over TCP without TLS, and the certificates of it and of strangers."""

from __future__ import annotations

import os
import pwd
import subprocess
from pathlib import Path
from typing import Final
from urllib.parse import quote

from support.postgres import PostgresServer

_ACCESS: Final = "local all all trust\nhostssl all all 127.0.0.1/32 trust\n"


class TlsServer(PostgresServer):
    """A cluster with a certificate for `localhost` of its own authority; `authority` is that one's file."""

    def __init__(self, folder: Path) -> None:
        """`folder` is for what clients read."""
        super().__init__()
        self.authority = folder / "authority.crt"
        certificate, key = certified("localhost", folder, self.authority)
        data = self.folder / "data"
        for name, source in (("server.crt", certificate), ("server.key", key)):
            _ = _owned(data / name).write_bytes(source.read_bytes())
        _ = (data / "pg_hba.conf").write_text(_ACCESS)
        self.run("ALTER SYSTEM SET ssl = on")
        self.run("SELECT pg_reload_conf()")

    def url(self, database: str, mode: str, authority: Path, host: str = "localhost") -> str:
        """Return how a client that asks for TLS finds a database."""
        terms = f"sslmode={mode}&sslrootcert={quote(str(authority), safe='')}"
        return f"postgresql://postgres@{host}:{self.port}/{database}?hostaddr=127.0.0.1&{terms}"

    def connections(self) -> set[tuple[object, ...]]:
        """Return whether those of our program use TLS, and which versions."""
        return set(
            self.run(
                "SELECT ssl, version FROM pg_stat_ssl JOIN pg_stat_activity USING (pid)"
                " WHERE application_name = 'strongroom'"
            )
        )


def certified(name: str, folder: Path, authority: Path) -> tuple[Path, Path]:
    """Return a certificate for a name and its key, signed by a new authority whose certificate is written to a file."""
    signs, request = folder / f"{authority.stem}.key", folder / f"{name}.csr"
    certificate, key, names = folder / f"{name}.crt", folder / f"{name}.key", folder / f"{name}.names"
    new_key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    _ = names.write_text(f"subjectAltName = DNS:{name}\n")
    _openssl("req", "-x509", *new_key, "-keyout", signs, "-out", authority, "-days", "2", "-subj", "/CN=Authority")
    _openssl("req", *new_key, "-keyout", key, "-out", request, "-subj", f"/CN={name}")
    signed_by = ("-CA", authority, "-CAkey", signs, "-CAcreateserial", "-days", "2", "-extfile", names)
    _openssl("x509", "-req", "-in", request, "-out", certificate, *signed_by)
    return certificate, key


def _openssl(*arguments: str | Path) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)


def _owned(path: Path) -> Path:
    """Return a new file that nobody but the server reads."""
    path.touch(mode=0o600)
    if os.getuid() == 0:
        user = pwd.getpwnam("postgres")
        os.chown(path, user.pw_uid, user.pw_gid)
    return path
