"""The reference page as a person sees it, in a browser that reaches nothing but this server."""

from __future__ import annotations

import shutil
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

from playwright.async_api import Browser, Page, Route, async_playwright, expect

from support.server import served, settings

SHOWN_MS = 30_000
"""How long a page may take to show something: the tests beside it may hold every core."""

ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@asynccontextmanager
async def browser() -> AsyncGenerator[Browser]:
    """Run the system's Chromium."""
    program = shutil.which("chromium")
    assert program, "scripts/setup.sh dev installs chromium"
    async with async_playwright() as playwright:
        running = await playwright.chromium.launch(executable_path=program, args=ARGUMENTS)
        expect.set_options(timeout=SHOWN_MS)
        try:
            yield running
        finally:
            await running.close()


class Watch:
    """Lets a page reach one server only, and keeps what it complains of and whatever else it asks for."""

    def __init__(self, page: Page, url: str) -> None:
        self.problems: list[str] = []
        self.elsewhere: list[str] = []
        self._page = page
        self._url = url

    async def start(self) -> None:
        """Begin to watch."""
        self._page.on("console", lambda message: self.problems.append(message.text))
        self._page.on("pageerror", lambda error: self.problems.append(str(error)))
        await self._page.route("**/*", self._sort)

    async def _sort(self, route: Route) -> None:
        address = route.request.url
        if address.startswith((self._url + "/", "data:")):
            await route.continue_()
        else:
            self.elsewhere.append(address)
            await route.abort()


async def test_a_person_reads_the_reference_without_the_internet(tmp_path: Path) -> None:
    """The page lists the operations, opens one with its parameters and refusals, and asks nobody else for anything."""
    async with served(settings(tmp_path)) as house, browser() as chromium:
        page = await chromium.new_page()
        watch = Watch(page, house.url)
        await watch.start()
        await page.goto(house.url + "/docs")
        withdrawal = page.locator("#operations-Wallet_v1-postPublicApiWalletV1UserCryptoWithdraw")
        await expect(withdrawal).to_contain_text("Withdraw a crypto asset")
        await withdrawal.locator(".opblock-summary-control").click()
        await expect(withdrawal).to_contain_text("The key needs the permission Withdraw.")
        await expect(withdrawal).to_contain_text("amountToAddress")
        await expect(withdrawal).to_contain_text("Idempotency-Key")
        await expect(withdrawal).to_contain_text("insufficient_balance")
        assert watch.problems == []
        assert watch.elsewhere == []


async def test_the_page_may_run_nothing_but_its_own_files(tmp_path: Path) -> None:
    """The page, its script and its document carry a policy that names this server only."""
    async with served(settings(tmp_path)) as house:
        page = await house.client.get("/docs")
        assert page.headers["content-type"] == "text/html; charset=utf-8"
        policy = page.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "http" not in policy
        sources = [line.split('"')[1] for line in page.text.splitlines() if line.startswith("<script ")]
        assert len(sources) == 2
        script = await house.client.get(sources[0])
        assert script.headers["content-type"] == "text/javascript; charset=utf-8"
        assert "immutable" in script.headers["cache-control"]
        assert script.headers["x-content-type-options"] == "nosniff"
        assert (await house.client.get("/openapi.json")).headers["cache-control"] == "no-cache"
        assert (await house.client.get("/docs/")).status_code == 404
