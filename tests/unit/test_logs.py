"""Logs: a line an event, and nothing in it that is nobody's business."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Generator

import pytest
import structlog

from strongroom.observe.logs import REDACTED, configure_logs

SECRETS = (
    "ab" * 32,
    "AB" * 48,
    "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080",
    "0x52908400098527886E0F7030069857D2E4169EE7",
    "rDsbeomae4FXwgQTJp9Rs64Qg9vDiTCdBv",
    "2MzQwSSnBHWHqSAqtTVQ6v47XtaisrJa1Vc",
    "1BvBMSEYstWetqTFn5Au4m4GFg7xJaNVN2",
)


@pytest.fixture
def out() -> Generator[io.StringIO]:
    """Log to a text as JSON."""
    text, root = io.StringIO(), logging.getLogger()
    handlers, level = root.handlers[:], root.level
    configure_logs("info", "json", text)
    yield text
    structlog.reset_defaults()
    root.handlers[:], root.level = handlers, level


@pytest.mark.parametrize("secret", SECRETS)
def test_what_looks_like_a_secret_or_an_address_is_taken_out(out: io.StringIO, secret: str) -> None:
    """A key, a signature or an address in any text of an event is not written, nor is one in an exception."""
    log = structlog.get_logger()
    about = f"about {secret}"
    log.warning(about, reason=f"got {secret}!", many=[secret], inner={"x": {"y": secret}})
    try:
        raise ValueError(f"no {secret}")
    except ValueError as error:
        log.error("failed", problem=error, exc_info=error)
    logging.getLogger("library").error("failed with %s", secret)
    assert secret not in out.getvalue()
    assert out.getvalue().count(REDACTED) >= 6
    assert len(out.getvalue().splitlines()) == 3


@pytest.mark.parametrize(
    "name",
    ["secret", "api_secret", "api_key", "key", "request_sign", "signature", "mnemonic", "token", "toAddress", "mail"],
)
def test_a_field_with_a_telling_name_loses_its_value(out: io.StringIO, name: str) -> None:
    """However it looks, what a field calls a secret is not written."""
    structlog.get_logger().info("event", **{name: "short"}, other={name: "short"})
    assert "short" not in out.getvalue()


def test_what_helps_an_operator_stays(out: io.StringIO) -> None:
    """Transactions, blocks, references and plain words are what logs are for."""
    fields = {"txid": "ab" * 32, "block": "cd" * 32, "ref": 2026011500000000001, "kind": "Transfer", "up": True}
    structlog.get_logger().info("paid", **fields)
    event = json.loads(out.getvalue())
    assert {name: event[name] for name in fields} == fields
    assert (event["event"], event["level"]) == ("paid", "info")
    assert event["timestamp"].endswith("Z")


def test_what_is_below_the_level_is_not_written(out: io.StringIO) -> None:
    """The level of the settings holds."""
    structlog.get_logger().debug("small talk")
    logging.getLogger("library").info("small talk")
    assert not out.getvalue()
