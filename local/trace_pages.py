"""Serves the page of ``make trace`` from the local API server, for the links in the console.

Only the local stack has this path. The page shows log lines without sign-in. The server listens on 127.0.0.1, and
refuses requests that name another host or come from another site's page. Otherwise, a page on the internet could read
it through a DNS name that resolves to 127.0.0.1, or show it in a frame.

``python -m local.trace_pages FOLDER API_PORT AWS_PORT ID`` prints the page. It runs in a process of its own, because
the server imports the deployed code, and has only the permissions of the API.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from chalice.local import ChaliceRequestHandler

from local.processes import basic_environment

ID_CHARACTERS = 1_024
SECONDS = 60
UNKNOWN = 3
HEADERS = {
    "Content-Security-Policy": "frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


def refusal(headers: Mapping[str, str], port: int) -> str | None:
    """Returns why a request is refused, or None if it comes from this machine and from no other site."""
    if headers.get("Host") not in (f"127.0.0.1:{port}", f"localhost:{port}"):
        return "This page is served only to this machine."
    # Browsers send this header. A request without it comes from another program on this machine.
    if headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin"):
        return "Another site's page must not open this page."
    return None


class Handler(ChaliceRequestHandler):
    """Answers GET requests for ``CAFE_TRACE_PATH``, and passes all other requests on to the API."""

    def do_GET(self) -> None:  # noqa: N802 - the name in http.server
        url, name = urlsplit(self.path), os.environ.get("CAFE_TRACE_PATH")
        if not name or url.path != f"/{name}":
            self._generic_handle()
            return
        identifier = parse_qs(url.query).get("id", [""])[0]
        if problem := refusal(self.headers, self.server.server_address[1]):
            self._answer(HTTPStatus.FORBIDDEN, problem)
        elif not identifier.isprintable() or not 1 <= len(identifier) <= ID_CHARACTERS:
            self._answer(HTTPStatus.BAD_REQUEST, f"id must have 1 to {ID_CHARACTERS:,} printable characters.")
        else:
            self._answer(*_printed(identifier))

    def _answer(self, status: HTTPStatus, text: str) -> None:
        kind = "text/html" if status == HTTPStatus.OK else "text/plain"
        self._send_http_response(status, {**HEADERS, "Content-Type": f"{kind}; charset=utf-8"}, text)


def _printed(identifier: str) -> tuple[HTTPStatus, str]:
    command = [sys.executable, "-m", "local.trace_pages", *json.loads(os.environ["CAFE_LOCAL_STACK"]), identifier]
    environment = {**basic_environment(), "PYTHONPATH": os.environ["PYTHONPATH"], "PYTHONUTF8": "1"}
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return HTTPStatus.GATEWAY_TIMEOUT, f"The page was not ready after {SECONDS} s: reload it."
    if done.returncode not in (0, UNKNOWN):
        print(done.stderr, file=sys.stderr)
        return HTTPStatus.INTERNAL_SERVER_ERROR, "The page could not be made: see `make logs FUNCTION=API`."
    return (HTTPStatus.NOT_FOUND if done.returncode else HTTPStatus.OK), done.stdout


def main(folder: str, api_port: str, aws_port: str, identifier: str) -> int:
    # The imports are inside the function because the API server imports this module too.
    from local import logs
    from local.stack import Stack

    stack = Stack(Path(folder), api_port=int(api_port), aws_port=int(aws_port))
    lines = logs.lines_about(stack, identifier)
    print(logs.page_about(stack, identifier, lines) if lines else "\n".join(logs.described(identifier, lines)))
    return 0 if lines else UNKNOWN


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
