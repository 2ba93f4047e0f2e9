"""Running a demo: found it if it is new, then serve it like any other house."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from strongroom.admin.hosting import check_address, host, run_until_stopped
from strongroom.config.secrets import load_master_key
from strongroom.demo.founding import found
from strongroom.demo.house import DemoKeys, Opening, demo_config
from strongroom.observe.logs import configure_logs

OnReady = Callable[[str, Path, DemoKeys], None]


def run_demo(folder: Path | None, opening: Opening, on_ready: OnReady) -> int:
    """Serve a demo from a folder, a new temporary one without it, until a signal; return the process's exit code.

    `on_ready` is told the base URL, the folder, and who there is. Raises as
    `strongroom.admin.hosting.host`.
    """
    check_address(opening.host, opening.port)
    place = (folder or Path(tempfile.mkdtemp(prefix="strongroom-demo-"))).absolute()
    config = demo_config(place, opening)

    async def main() -> int:
        # What goes wrong in the demo's past is meant to, and is no news.
        configure_logs("error", "console")
        keys = await found(place)
        configure_logs(config.logs.level, "console")
        return await host(config, load_master_key(config, {}), lambda url: on_ready(url, place, keys))

    return run_until_stopped(main)
