"""Runs a load test, an outage test or a soak test on a newly started stack.

Use ``pytest tests/faults`` to test each flow with single faults instead.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from chalicelib import clients
from local.steps import say
from tests.faults.load import RETRIES, load, outage, silent, soak
from tests.system.faults import unavailable
from tests.system.stack import Faulty, running

# The exit status is 0 only if each of these counts is 0.
PROMISED = (
    *("lost", "doubled", "not announced", "not in the inbox"),
    *("rows lost", "rows doubled", "reports lost", "reports doubled", "waiting for a person", "dead letters"),
)

# The busiest second after an outage may have at most this many times the calls of the busiest second before.
STORM = 3


def outages(system: Faulty, seconds: float) -> int:
    """Runs two outages and prints the calls per second.

    Returns 1 if a call had more tries than the AWS clients allow, or if the end of an outage caused a storm of calls.
    """
    worst = 0
    for effect, fault in (("returns 503", unavailable), ("does not respond", silent)):
        say(f"AWS {effect} for {seconds:g} seconds")
        meter = outage(system, fault, seconds, say)
        rates = meter.rates()
        for phase, (average, highest) in rates.items():
            say(f"  {phase:<7} {average:6.1f} calls a second, at most {highest}")
        storm = rates["after"][1] / rates["before"][1]
        say(f"  highest rate after the outage / before: {storm:.1f}; most tries of one call: {meter.tries}")
        worst |= meter.tries > clients.ATTEMPTS or storm > STORM
    return worst


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="command", dest="command")
    command = commands.add_parser("load", help="many orders, while calls to AWS fail at random")
    command.add_argument("--orders", type=int, default=10_000)
    command.add_argument("--share", type=float, default=0.05, help="share of the calls that fail (default: 0.05)")
    command = commands.add_parser("outage", help="all calls to AWS fail; prints the calls per second and the tries")
    command.add_argument("--seconds", type=float, default=60)
    command = commands.add_parser(
        "soak", help="orders at half of the maximum rate, while MySQL and workers restart and AWS fails for a minute"
    )
    command.add_argument("--minutes", type=float, default=10)
    given = parser.parse_args()
    with ExitStack() as stack:
        system = stack.enter_context(running(Path(stack.enter_context(tempfile.TemporaryDirectory()))))
        for queue in ("ORDERS_QUEUE_URL", RETRIES):
            # While SQS fails, no pause can be set, and a failed message comes back after this many seconds.
            stack.enter_context(system.visibility(30, queue))
        _ = system.subscriber
        if given.command == "load":
            say(f"{given.orders:,} orders in lists of 100, while {given.share:.0%} of the calls to AWS fail")
            counts, rate = load(system, given.orders, given.share, say)
            say(f"  {rate:.0f} orders a second, from the first request to the last announcement")
        elif given.command == "outage":
            return outages(system, given.seconds)
        else:
            say("Measuring the maximum rate of this machine, while 5% of the calls fail")
            _, rate = load(system, 1_000, 0.05, say)
            say(f"{given.minutes:g} minutes at half of {rate:.0f} orders a second")
            counts = soak(system, given.minutes, rate / 2, say)
    for what, number in counts.items():
        say(f"  {what:<24} {number:>8,}")
    return any(counts.get(what) for what in PROMISED)


if __name__ == "__main__":
    sys.exit(main())
