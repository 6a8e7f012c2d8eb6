"""Runs the smoke test: the API must respond, and every event-driven function must run.

The test reads from the API as a temporary user and invokes the functions with empty events. The test stores no data and
sends no messages.
"""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

from infra.deploy.target import Clients, Target
from infra.users import new_password

USER = "smoke-test"
READ = ("/orders", "/reports", "/notifications", "/dead-letters")
# A new API deployment or permission takes effect after a few seconds.
SETTLE_SECONDS = 15
# On AWS, API Gateway responds within 30 seconds. On an emulated processor, the first requests take minutes.
ANSWER_SECONDS = 300


def test(
    target: Target, outputs: Mapping[str, str], wiring: Mapping[str, Any], package: Path, clients: Clients
) -> list[str]:
    """Tests a deployed stage, and returns a line for each problem."""
    with zipfile.ZipFile(package) as file:
        description = file.read("chalicelib/openapi.json")
    problems = _problems_after_settling(target, outputs["REST_API_URL"], description)
    if problems:
        return problems
    names = sorted({*wiring["mappings"], *wiring["subscriptions"], *wiring["notified"]})
    lambda_ = clients("lambda")
    with ThreadPoolExecutor() as pool:
        reading = pool.submit(_as_a_manager, outputs, clients)
        running = pool.map(lambda name: _on_empty_event(lambda_, target, name), names)
    return [*reading.result(), *(problem for each in running for problem in each)]


def _problems_after_settling(target: Target, url: str, description: bytes) -> list[str]:
    end = time.monotonic() + SETTLE_SECONDS
    while (problems := list(_open_routes(target, url, description))) and time.monotonic() < end:
        time.sleep(1)
    return problems


def _open_routes(target: Target, url: str, description: bytes) -> Iterator[str]:
    status, body = _get(f"{url}/health")
    if status != 200 or _json(body).get("stage") != target.stage:
        yield f"GET /health: {status}, {_short(body)}"
        return
    status, body = _get(f"{url}/openapi.json")
    if status != 200 or _json(body) != json.loads(description):
        yield f"GET /openapi.json: {status}, and the body is not the deployed chalicelib/openapi.json"
    status, body = _get(f"{url}/orders")
    if status != 401:
        yield f"GET /orders without a token: {status}, not 401"


def _as_a_manager(outputs: Mapping[str, str], clients: Clients) -> list[str]:
    """Requests every list from the API as a temporary user in the group ``managers``, and returns the problems."""
    cognito, pool = clients("cognito-idp"), {"UserPoolId": outputs["USER_POOL_ID"], "Username": USER}
    password = new_password()
    # An interrupted smoke test may have left the temporary user behind.
    with suppress(cognito.exceptions.UsernameExistsException):
        cognito.admin_create_user(**pool, MessageAction="SUPPRESS")
    try:
        cognito.admin_set_user_password(**pool, Password=password, Permanent=True)
        cognito.admin_add_user_to_group(**pool, GroupName="managers")
        answer = cognito.initiate_auth(
            ClientId=outputs["USER_POOL_CLIENT_ID"],
            AuthFlow="USER_PASSWORD_AUTH",
            AuthParameters={"USERNAME": USER, "PASSWORD": password},
        )
        token = answer["AuthenticationResult"]["IdToken"]
        answers = {path: _get(f"{outputs['REST_API_URL']}{path}?limit=1", token) for path in READ}
    finally:
        cognito.admin_delete_user(**pool)
    return [f"GET {path}: {status}, {_short(body)}" for path, (status, body) in answers.items() if status != 200]


def _get(url: str, token: str | None = None) -> tuple[int, bytes]:
    """Requests a URL. Returns the status and body of the response. Without a response, returns 0 and the reason."""
    request = urllib.request.Request(url, headers={"Authorization": token} if token else {})  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=ANSWER_SECONDS) as answer:  # noqa: S310 - the API's own  # nosec B310
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()
    except OSError as error:
        return 0, str(error).encode()


def _json(body: bytes) -> dict[str, Any]:
    """Returns the JSON object in ``body``, or an empty dictionary for any other content."""
    try:
        content = json.loads(body)
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}


def _short(body: bytes) -> str:
    return " ".join(body.decode(errors="replace").split())[:200]


def _on_empty_event(lambda_: Any, target: Target, name: str) -> list[str]:
    answer = lambda_.invoke(FunctionName=target.function(name), Payload=b'{"Records": []}')
    payload = answer["Payload"].read()
    return [f"{name}: fails on an empty event: {_short(payload)}"] if "FunctionError" in answer else []
