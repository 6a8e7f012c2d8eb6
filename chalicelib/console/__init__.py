"""Serves the console: one web page, with the scripts and styles in this folder.

The page itself is public and the same for everyone. Users must sign in before the API returns data to the page.
"""

from __future__ import annotations

import hashlib
import html
from pathlib import Path
from string import Template

from chalice.app import Request, Response

from chalicelib import rest
from chalicelib.errors import NotFound
from chalicelib.settings import VERSION, Settings, cognito_endpoint, trace_path, uploads_url

FOLDER = Path(__file__).parent
# All types are text, because Chalice sends a binary file only if the Accept header names the exact file type.
TYPES = {".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml"}
# Error messages shorten file names to this length.
NAME_CHARACTERS = 80


def page(request: Request, settings: Settings) -> Response:
    """Returns ``index.html`` with the API's URL in ``<base>`` and the settings in ``<meta>`` elements."""
    values = {
        "base": f"{rest.base_url(request)}/",
        "cognito_endpoint": cognito_endpoint(settings),
        "client_id": settings.user_pool_client_id,
        "stage": settings.cafe_stage,
        "version": VERSION,
        "trace_path": trace_path(),
    }
    # The browser loads all modules at once, and not one import after another.
    modules = [f'<link rel="modulepreload" href="console/{path.name}">' for path in sorted(FOLDER.glob("*.js"))]
    filled = Template((FOLDER / "index.html").read_text("utf-8")).substitute(
        {name: html.escape(value) for name, value in values.items()}, modules="\n".join(modules)
    )
    return _answer(request, settings, filled, "text/html; charset=utf-8")


def file(request: Request, settings: Settings, name: str) -> Response:
    """Returns the console file ``name``. Raises ``NotFound``."""
    # The name must match the name of an existing file, so a path such as ``../app.py`` cannot leave the folder.
    for path in FOLDER.iterdir():
        if path.name == name and path.suffix in TYPES:
            return _answer(request, settings, path.read_text("utf-8"), TYPES[path.suffix])
    raise NotFound("file", name[:NAME_CHARACTERS])


def _answer(request: Request, settings: Settings, text: str, content_type: str) -> Response:
    """Returns a response with ``text``, or a 304 response if the copy in the browser is current.

    The browser revalidates its copy of a file every time, so it never shows an outdated file after a deploy.
    """
    headers: dict[str, str | list[str]] = {
        # A 304 response also needs a content type, because browsers store it and the default in API Gateway is JSON.
        "Content-Type": content_type,
        "Content-Security-Policy": content_security_policy(settings),
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-cache",
    }
    # The digest includes the headers, so browsers also receive changed headers.
    digest = hashlib.sha256(f"{headers} {text}".encode()).hexdigest()[:32]
    # A weak ETag also matches the compressed response.
    headers["ETag"] = f'W/"{digest}"'
    browser_tags = request.headers.get("if-none-match", "").split(",")
    if digest in (tag.strip().removeprefix("W/").strip('"') for tag in browser_tags):
        return Response("", headers, status_code=304)
    return Response(text, headers)


def content_security_policy(settings: Settings) -> str:
    """Returns a policy that allows only the files of the page, the API, the user pool and the uploads bucket."""
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
