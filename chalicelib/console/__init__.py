"""The console: one web page, and the files beside this one that it loads. Its server's part is all in here.

The page is the same for all who load it, and needs no sign-in by itself: what it shows it asks the API for.
"""

from __future__ import annotations

import hashlib
import html
from pathlib import Path
from string import Template

from chalice.app import Request, Response

from chalicelib import rest
from chalicelib.errors import NotFound
from chalicelib.settings import VERSION, Settings, cognito_endpoint, uploads_url

FOLDER = Path(__file__).parent
# All text: of what Chalice takes for binary, API Gateway gives nothing to those who do not ask for just that type.
TYPES = {".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml"}
NAME_CHARACTERS = 80


def page(request: Request, settings: Settings) -> Response:
    """``index.html``, told by ``<base>`` where the API is, and by ``<meta>`` what else the page has to know."""
    told = {
        "base": f"{rest.base_url(request)}/",
        "cognito_endpoint": cognito_endpoint(settings),
        "client_id": settings.user_pool_client_id,
        "uploads_url": uploads_url(settings),
        "stage": settings.cafe_stage,
        "version": VERSION,
    }
    filled = Template((FOLDER / "index.html").read_text("utf-8")).substitute(
        {name: html.escape(value) for name, value in told.items()}
    )
    return _answer(request, settings, filled, "text/html; charset=utf-8")


def file(request: Request, settings: Settings, name: str) -> Response:
    """The file ``name`` of the page. Raises ``NotFound``."""
    # One of those that are there: whatever the name is, it leads nowhere else.
    for path in FOLDER.iterdir():
        if path.name == name and path.suffix in TYPES:
            return _answer(request, settings, path.read_text("utf-8"), TYPES[path.suffix])
    raise NotFound("file", name[:NAME_CHARACTERS])


def _answer(request: Request, settings: Settings, text: str, content_type: str) -> Response:
    """``text``, or that the browser has it already: it asks each time, so after a deploy it never shows an old file."""
    headers: dict[str, str | list[str]] = {
        # Also where there is no body: the browser keeps the headers of the latest answer, and API Gateway would make
        # this one JSON, which no browser runs as a script.
        "Content-Type": content_type,
        "Content-Security-Policy": content_security_policy(settings),
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-cache",
    }
    # Weak, for it names the text whether it travels compressed or not; and the headers, which belong to it.
    digest = hashlib.sha256(f"{headers} {text}".encode()).hexdigest()[:32]
    headers["ETag"] = f'W/"{digest}"'
    known = request.headers.get("if-none-match", "")
    if digest in (each.strip().removeprefix("W/").strip('"') for each in known.split(",")):
        return Response("", headers, status_code=304)
    return Response(text, headers)


def content_security_policy(settings: Settings) -> str:
    """What the page may load and ask: its own files and API, the user pool, and the bucket of the uploads."""
    return "; ".join(
        [
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            "img-src 'self' data:",
            f"connect-src 'self' {cognito_endpoint(settings)} {uploads_url(settings)}",
            "base-uri 'self'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        ]
    )
