"""Implements the curl options that the README's examples use, for machines without curl.

Prints the HTTP status to standard error.
"""

import argparse
import sys
import urllib.error
import urllib.request

parser = argparse.ArgumentParser(prog="curl")
parser.add_argument("-X", dest="method")
parser.add_argument("-H", dest="headers", action="append", default=[])
parser.add_argument("-d", dest="body")
parser.add_argument("url")
given = parser.parse_args()

request = urllib.request.Request(
    given.url,
    given.body.encode() if given.body is not None else None,
    dict(header.split(": ", 1) for header in given.headers),
    method=given.method,
)
try:
    answer = urllib.request.urlopen(request, timeout=30)
except urllib.error.HTTPError as error:
    answer = error
with answer:
    print(answer.read().decode())
    print(answer.status, file=sys.stderr)
