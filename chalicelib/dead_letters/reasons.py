"""Explains in plain words why work failed, and decides whether the reason may pass.

The function ``retry_failures`` retries work whose reason may pass. All other work waits for a person.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from chalicelib import errors

# Maps the names of our errors that may pass to their causes. ``DatabaseRefused`` is not one of them, because MySQL may
# refuse the content of a file. ``Runtime.ExitError`` is one, because retries end after 24 hours even
# if the process is killed each time.
MAY_PASS = {
    "Unavailable": "an AWS service is down or overloaded",
    "DatabaseUnavailable": "MySQL is down, paused or overloaded",
    "PasswordRefused": "a rotation has just replaced the password",
    "Sandbox.Timedout": "a service answers slowly, or not at all",
    "Runtime.ExitError": "the process was killed",
}
TIMED_OUT = re.compile(r"Task timed out after ([0-9]+)(?:\.[0-9]+)? seconds")
AWS_REFUSED = re.compile(r"An error occurred \((\S+)\) when calling the (\w+) operation[^:]*: ?(.*)", re.DOTALL)


class Reason(NamedTuple):
    """Why work failed, and whether the same work may succeed later."""

    why: str
    may_pass: bool


def of_invocation(function: str, context: Mapping[str, Any], error: Any) -> Reason:
    """Returns the reason that Lambda's failure record gives. ``error`` is None if the code reported no error."""
    reason = _of_error(function, error) if isinstance(error, dict) and error else None
    if context.get("condition") == "EventAgeExceeded":
        why = "the event expired before the function could run"
        return Reason(why + (f"; before that, {reason.why}" if reason else ""), True)
    # Lambda reports every error of the code, so without an error Lambda itself failed.
    return reason or Reason(f"the function {function} failed without reporting an error: see its log", True)


def _of_error(function: str, error: Mapping[str, Any]) -> Reason:
    name, text = (str(error.get(each) or "") for each in ("errorType", "errorMessage"))
    if timed_out := TIMED_OUT.search(text):
        return Reason(f"the function {function} did not finish within {timed_out[1]} seconds", True)
    if name == "Runtime.ExitError":
        return Reason(f"the process of the function {function} was ended: see its log", True)
    if refused := AWS_REFUSED.match(text):
        code, operation, explanation = refused.groups()
        why = f"AWS refused {operation} ({code})" + (f": {explanation}" if explanation else "")
        return Reason(why, code not in errors.REFUSED_CONTENT)
    own = getattr(errors, name, None)
    if text and isinstance(own, type) and issubclass(own, errors.CafeError):
        return Reason(text.removesuffix(": try again in a moment"), name in MAY_PASS)
    what = f" ({name})" if name else ""
    return Reason(f"the function {function} has an error in its code{what}: see its log", name in MAY_PASS)


def of_delivery(attributes: Mapping[str, str]) -> Reason:
    """Returns the reason why SNS could not deliver a message.

    Every such reason may pass, because it says nothing about the message's content.
    """
    text = attributes.get("ErrorMessage")
    return Reason("SNS could not deliver the message to a subscriber" + (f": {text}" if text else ""), True)


def of_schedule(attributes: Mapping[str, str]) -> Reason:
    """Returns the reason why EventBridge Scheduler could not start a report.

    The reason may pass unless AWS refuses the content.
    """
    text = attributes.get("ERROR_MESSAGE") or attributes.get("ERROR_CODE")
    why = "the report could not be started" + (f": {text}" if text else "")
    return Reason(why, attributes.get("ERROR_CODE") not in errors.REFUSED_CONTENT)
