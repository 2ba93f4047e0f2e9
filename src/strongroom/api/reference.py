"""The reference page: the OpenAPI document rendered by Swagger UI from an installed package, with nothing fetched."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from swagger_ui_bundle import swagger_ui_path  # pyright: ignore[reportMissingTypeStubs]

from strongroom.api import openapi
from strongroom.api.health import Page

PATH: Final = "/docs"

_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_CHANGING: Final = "no-cache"
_UNCHANGING: Final = "public, max-age=31536000, immutable"
"""For files whose path has their version."""

_TYPES: Final = {
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".png": "image/png",
}
_FILES: Final = ("swagger-ui.css", "swagger-ui-bundle.js", "favicon-32x32.png")
_PAGE: Final = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Strongroom: API reference</title>
<link rel="icon" type="image/png" href="{files}/favicon-32x32.png">
<link rel="stylesheet" href="{files}/swagger-ui.css">
<script src="{files}/swagger-ui-bundle.js" defer></script>
<script src="{start}" defer></script>
</head>
<body>
<noscript>This page needs JavaScript; the document it shows is at <a href="{document}">{document}</a>.</noscript>
<main id="reference"></main>
</body>
</html>
"""
# The validator's badge would call a public server; a signature cannot be made in the page, so nothing is sent from it.
_START: Final = """\
SwaggerUIBundle({
  url: "%s",
  dom_id: "#reference",
  deepLinking: true,
  defaultModelsExpandDepth: 0,
  docExpansion: "list",
  filter: true,
  supportedSubmitMethods: [],
  validatorUrl: null,
});
"""


def static_pages() -> dict[str, Page]:
    """Return the document, the reference page and its files, by the exact path of each."""
    folder = Path(str(swagger_ui_path))
    files, start = f"{PATH}/{folder.name}", f"{PATH}/start.js"
    page = _PAGE.format(files=files, start=start, document=openapi.PATH)
    pages = {
        openapi.PATH: _page("application/json", openapi.encoded(), _CHANGING),
        PATH: _page("text/html; charset=utf-8", page.encode(), _CHANGING),
        start: _page(_TYPES[".js"], (_START % openapi.PATH).encode(), _CHANGING),
    }
    for name in _FILES:
        path = folder / name
        pages[f"{files}/{name}"] = _page(_TYPES[path.suffix], path.read_bytes(), _UNCHANGING)
    return pages


def _page(content_type: str, body: bytes, caching: str) -> Page:
    headers = (
        (b"cache-control", caching.encode()),
        (b"content-security-policy", _POLICY.encode()),
        (b"x-content-type-options", b"nosniff"),
        (b"referrer-policy", b"no-referrer"),
    )
    return Page(content_type, body, headers)
