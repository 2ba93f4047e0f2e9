"""The limit: nginx with one worker, returning a constant."""

from __future__ import annotations

import http.client
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from load import Result, need, run
from processes import cores, free_port, started, wait_until

_CONFIG = """\
daemon off;
worker_processes 1;
pid nginx.pid;
error_log error.log;
events { worker_connections 1024; }
http {
    access_log off;
    keepalive_requests 1000000000;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    server {
        listen 127.0.0.1:%d;
        default_type application/json;
        location / { return 200 '{"ok":true}'; }
    }
}
"""


def measure(folder: Path, connections: int, seconds: float) -> Result:
    """Return what nginx measured on the server's core."""
    with _serving(folder) as (port, pid):
        _ = run(port, connections, 1, None, (pid,))
        return run(port, connections, seconds, None, (pid,))


@contextmanager
def _serving(folder: Path) -> Iterator[tuple[int, int]]:
    folder.mkdir()
    port, log = free_port(), folder / "error.log"
    config = folder / "nginx.conf"
    config.write_text(_CONFIG % port)
    with started([need("nginx"), "-p", str(folder), "-c", str(config)], log, cores()[:1]) as process:
        _ = wait_until(_answers(port), process, log)
        yield port, process.pid


def _answers(port: int) -> Iterator[bool]:
    while True:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=1)
        try:
            connection.request("GET", "/")
            yield connection.getresponse().status == 200
        except OSError:
            yield False
        finally:
            connection.close()
