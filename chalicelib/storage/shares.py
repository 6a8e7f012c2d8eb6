"""Divides a long listing of S3 objects into shares.

One Lambda function writes each share to a file, many functions list the objects, and one function merges the results.
"""

from __future__ import annotations

import json
from dataclasses import astuple, dataclass
from datetime import datetime
from typing import Any
from uuid import uuid4

from botocore.exceptions import BotoCoreError, ClientError

from chalicelib.reports import folder
from chalicelib.storage.measurement import Part, Tally
from chalicelib.storage.ranges import Range
from chalicelib.storage.refusals import translate
from chalicelib.timeline import timestamp

# The state machine's MaxConcurrency must equal this number of shares. A function reads up to 320 pages a second, and S3
# allows 5,500 calls a second for each prefix. By default, an AWS account can run 1,000 functions concurrently.
SHARES = 16

# A spread contains the number of a round, the id of the round, and the numbers of the shares. The state machine passes
# the spread on to the functions.
Spread = dict[str, Any]


@dataclass(frozen=True)
class ShareFiles:
    """Writes and reads the files of one storage report in the reports bucket."""

    s3: Any
    bucket: str
    report_id: str

    def _key(self, name: str) -> str:
        return f"{folder('storage', self.report_id)}/{name}.json"

    def write(self, name: str, tallies: list[Tally]) -> None:
        content = [_to_json(tally) for tally in tallies]
        body = json.dumps(content, separators=(",", ":"), default=timestamp).encode()
        self.put(self._key(name), body, "application/json", "the remaining work")

    def put(self, key: str, body: bytes, content_type: str, what: str) -> None:
        """Stores an object. ``what`` names the object in error messages."""
        try:
            self.s3.put_object(Bucket=self.bucket, Key=key, Body=body, ContentType=content_type)
        except (ClientError, BotoCoreError) as error:
            raise translate(error, f"{what} cannot be stored in {self.bucket}") from error

    def read(self, name: str) -> list[Tally]:
        try:
            answer = self.s3.get_object(Bucket=self.bucket, Key=self._key(name))
            return [_from_json(each) for each in json.load(answer["Body"])]
        except (ClientError, BotoCoreError) as error:
            raise translate(error, f"the remaining work cannot be read from {self.bucket}") from error


def assign_shares(files: ShareFiles, tallies: list[Tally], round_number: int) -> Spread:
    """Writes the work for a round to at most ``SHARES`` files, and returns ``{"round", "id", "shares"}``.

    An additional file contains all counts so far. Each attempt uses a new id, so two attempts never use the same files.
    """
    spread: Spread = {"round": round_number, "id": uuid4().hex}
    pieces = [
        Tally(tally.name, tally.region, left={0: rest}, parts=None if tally.parts is None else ())
        for tally in tallies
        if not tally.error
        for rest in tally.left.values()
    ]
    # The key ranges of each bucket are spread over several shares.
    shares = [share for start in range(SHARES) if (share := pieces[start::SHARES])]
    for number, share in enumerate(shares):
        files.write(_name(spread, number), share)
    files.write(_name(spread, "all"), tallies)
    return {**spread, "shares": list(range(len(shares)))}


def read_share(files: ShareFiles, spread: Spread) -> list[Tally]:
    """Returns the tallies of the share whose number is in ``spread``."""
    return files.read(_name(spread, spread["share"]))


def write_result(files: ShareFiles, spread: Spread, tallies: list[Tally]) -> None:
    """Writes the counts of a share, and the key ranges that are still unlisted."""
    files.write(f"{_name(spread, spread['share'])}-listed", tallies)


def merge_shares(files: ShareFiles, spread: Spread) -> list[Tally]:
    """Merges the results of a round, and returns the tallies of all buckets."""
    tallies = {tally.name: tally for tally in files.read(_name(spread, "all"))}
    for tally in tallies.values():
        if not tally.error:
            tally.left = {}
    for number in spread["shares"]:
        for listed in files.read(f"{_name(spread, number)}-listed"):
            tallies[listed.name].add(listed)
    return list(tallies.values())


def _name(spread: Spread, share: object) -> str:
    return f"round-{spread['round']}-{spread['id']}/{share}"


def _to_json(tally: Tally) -> dict[str, Any]:
    return {
        "name": tally.name,
        "region": tally.region,
        "counted": tally.counted,
        "asOf": tally.as_of,
        "error": tally.error,
        "left": [astuple(rest) for rest in tally.left.values()],
        "parts": None if tally.parts is None else [astuple(part) for part in tally.parts],
    }


def _from_json(content: dict[str, Any]) -> Tally:
    parts: list[Any] = [
        (*part, oldest and datetime.fromisoformat(oldest)) for *part, oldest in content.get("parts") or []
    ]
    return Tally(
        content["name"],
        content["region"],
        (content["counted"][0], content["counted"][1]) if content["counted"] else None,
        datetime.fromisoformat(content["asOf"]) if content["asOf"] else None,
        content["error"],
        {number: Range(*rest) for number, rest in enumerate(content["left"])},
        None if content.get("parts") is None else tuple(Part(*part) for part in parts),
    )
