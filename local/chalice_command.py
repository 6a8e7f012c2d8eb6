"""Implements the ``chalice`` command in ``.local/env``. The command runs Chalice and keeps the local API up to date.

``chalice deploy`` also restarts the API with the new code, and prints a URL that works on this machine. ``chalice
delete`` also stops the API.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from local.chalice_local import CHALICE
from local.stack import Stack

API_URL = re.compile(r"https://(?P<api>\w+)\.execute-api\.[\w.-]+\.amazonaws\.com/(?P<stage>[\w-]+)/?")


def main(folder: str, api_port: str, aws_port: str, *given: str) -> int:
    # Chalice must not inherit PYTHONPATH, because Chalice must import the code in its own project folder.
    os.environ.pop("PYTHONPATH", None)
    stack = Stack(Path(folder), api_port=int(api_port), aws_port=int(aws_port))
    command = [str(CHALICE), "--project-dir", str(stack.project), *given]
    if not {"deploy", "delete"} & set(given) or "--help" in given:
        os.execv(command[0], command)  # noqa: S606 - nothing is quoted  # nosec B606
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, bufsize=1) as process:
        for line in process.stdout or ():
            print(API_URL.sub(stack.cloud.endpoint + r"/_aws/execute-api/\g<api>/\g<stage>/", line), end="", flush=True)
    if process.returncode:
        return process.returncode
    if "deploy" in given:
        stack.restart_api()
        print(f"{stack.api_url} now serves the new code")
    else:
        stack.api.stop()
        print(f"{stack.api_url} has been stopped: run `make run` to deploy again")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
