"""Tests that each log record is one JSON object on one line."""

import io
import json
import logging
import subprocess
import sys
from datetime import datetime
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from chalicelib.logs import logger
from tests.unit.cloud import ROOT
from tests.unit.logged import log_handler, records


def test_a_record_is_one_line_with_its_level_logger_message_time_and_fields(log_lines: io.StringIO) -> None:
    # The text tries to forge a second log record.
    forged = 'o-1"}\n{"level": "ERROR", "message": "all is lost"}\r\u2028\u0085'
    try:
        raise ValueError("two\nlines")
    except ValueError:
        logger("orders").warning("order not written", extra={"orderID": forged}, exc_info=True)
    (record,) = records(log_lines)
    assert len(log_lines.getvalue().splitlines()) == 1
    assert datetime.fromisoformat(record.pop("timestamp")).tzinfo
    assert record.pop("exc_info").endswith("ValueError: two\nlines")
    names = {"level": "WARNING", "logger": "cafe.orders", "message": "order not written"}
    assert record == {**names, "orderID": forged}


@given(st.text() | st.lists(st.text()) | st.dictionaries(st.text(), st.integers()) | st.none() | st.binary())
def test_a_field_of_any_text_is_one_line_of_json(value: Any) -> None:
    record = logging.makeLogRecord({"msg": "x", "name": "cafe", "levelname": "INFO", "key": value})
    (line,) = log_handler().format(record).splitlines()
    json.loads(line)


def test_a_string_of_10_000_characters_is_logged_whole_and_a_longer_one_is_cut(log_lines: io.StringIO) -> None:
    for length in (10_000, 10_001):
        logger("uploads").info("x" * length, extra={"reason": "☕" * length})
    whole, cut = records(log_lines)
    assert (whole["message"], whole["reason"]) == ("x" * 10_000, "☕" * 10_000)
    assert (cut["message"], cut["reason"]) == ("x" * 9_999 + "…", "☕" * 9_999 + "…")
    assert max(map(len, log_lines.getvalue().splitlines())) < 256_000


def test_a_record_is_printed_once_even_below_lambdas_own_handler() -> None:
    """The Lambda runtime adds its own handler to the root logger before it imports the code."""
    code = (
        "import logging; logging.basicConfig(level=logging.INFO)\n"
        "from chalicelib.logs import logger\n"
        "logger('orders'); logger('reports').info('report started', extra={'reportId': 'r-1'})\n"
        "logger('orders').debug('never mind')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stderr == ""
    (line,) = done.stdout.splitlines()
    assert json.loads(line)["reportId"] == "r-1"
