"""Tests how the inventory is copied from MySQL to a CSV file in S3."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from datetime import UTC, datetime
from threading import Event
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pymysql.err import OperationalError

from chalicelib.errors import Unavailable
from chalicelib.reports import files
from chalicelib.reports.inventory import COLUMNS, NUMBERS, neutralise, read_inventory
from tests.unit.answering import Connection, Row, as_csv, selected

BUCKET = "cafe-test-reports"
NOW = datetime(2026, 11, 21, 3, 14, 15, 123456, tzinfo=UTC)
PART_BYTES = 500_000
BEAN = (7, "Café Azul", "Köln", "NW", "a@example.com", "555", 1, "Arabica", "Peaberry", "4.20", 12, "Bright")


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> int:
    """Makes the parts of a multipart upload so small that two batches of rows fill one part.

    The real S3 requires parts of at least 5 MiB, except for the last part.
    """
    assert files.PART_BYTES >= 5 * 1024 * 1024
    monkeypatch.setattr("moto.s3.models.S3_UPLOAD_PART_MIN_SIZE", PART_BYTES)
    monkeypatch.setattr(files, "PART_BYTES", PART_BYTES)
    return PART_BYTES


def read(connection: Connection, s3: Any, report_id: str = "r1") -> dict[str, Any]:
    return read_inventory(cast("Any", connection), s3, BUCKET, report_id, NOW)


def calls(s3: Any) -> list[str]:
    """Returns a list to which the name of every later call of the client ``s3`` is added."""
    made: list[str] = []
    s3.meta.events.register("before-call.s3", lambda model, **_: made.append(model.name))
    return made


def stored(s3: Any, report_id: str = "r1") -> list[list[str]]:
    body = s3.get_object(Bucket=BUCKET, Key=f"inventory/{report_id}/inventory.csv")["Body"].read()
    return list(csv.reader(io.StringIO(body.decode("utf-8-sig"), newline="")))


def many(count: int) -> Iterator[Row]:
    return selected(
        (1, "Azul", "", None, "", "", number, "Arabica", "x" * 255, "1.00", 5, "y" * 255) for number in range(count)
    )


def test_each_bean_is_a_line_under_the_names_of_the_columns(s3: Any) -> None:
    empty: Row = (None,) * 6 + (1, None, "", None, None, "")
    connection = Connection(selected([BEAN, empty]))
    answer = read(connection, s3)
    made = {"reportId": "r1", "csvKey": "inventory/r1/inventory.csv", "generatedAt": "2026-11-21T03:14:15.123456Z"}
    assert answer == {**made, "rows": 2}
    names = "supplier_id,supplier,city,state,email,phone,bean_id,type,product_name,price,quantity,description"
    assert stored(s3) == [names.split(","), [str(cell) for cell in BEAN], [*[""] * 6, "1", *[""] * 5]]
    assert connection.kind.__name__ == "SSCursor"
    assert "LEFT JOIN suppliers" in connection.query
    assert connection.query.endswith("ORDER BY beans.id")
    assert read(Connection([]), s3)["rows"] == 0
    assert stored(s3) == [list(COLUMNS)]


def test_the_file_is_a_download_with_a_name_and_a_byte_order_mark_for_spreadsheets(s3: Any) -> None:
    made = calls(s3)
    read(Connection(selected([BEAN])), s3)
    assert made == ["PutObject"]
    found = s3.get_object(Bucket=BUCKET, Key="inventory/r1/inventory.csv")
    assert found["ContentType"] == "text/csv; charset=utf-8"
    assert found["ContentDisposition"] == 'attachment; filename="inventory-r1.csv"'
    assert found["Body"].read().startswith("\ufeffsupplier_id,".encode())


@pytest.mark.parametrize(
    ("report_id", "folder", "filename"),
    [("M\xe4rz", "M\xe4rz", "inventory-M%C3%A4rz.csv"), ("..", "~..", "inventory-...csv")],
)
def test_a_report_with_any_name_has_a_key_that_a_link_can_contain_and_a_name_that_a_header_can_contain(
    s3: Any, report_id: str, folder: str, filename: str
) -> None:
    key = f"inventory/{folder}/inventory.csv"
    assert read(Connection([]), s3, report_id)["csvKey"] == key
    assert s3.get_object(Bucket=BUCKET, Key=key)["ContentDisposition"] == f'attachment; filename="{filename}"'


def test_a_large_inventory_is_uploaded_in_parts_of_bounded_size(s3: Any, small_parts: int) -> None:
    made = calls(s3)
    sizes: list[int] = []
    s3.meta.events.register("before-call.s3.UploadPart", lambda params, **_: sizes.append(len(params["body"])))
    count = 2_500
    assert read(Connection(many(count)), s3)["rows"] == count
    assert made == ["CreateMultipartUpload", "UploadPart", "UploadPart", "UploadPart", "CompleteMultipartUpload"]
    assert all(small_parts <= size < 1.2 * small_parts for size in sizes[:-1])
    assert [row[6] for row in stored(s3)[1:]] == [str(number) for number in range(count)]
    assert s3.head_object(Bucket=BUCKET, Key="inventory/r1/inventory.csv")["ContentType"] == "text/csv; charset=utf-8"


def test_only_the_next_part_is_read_from_mysql_during_an_upload(s3: Any, small_parts: int) -> None:
    taken, in_second_part = 0, Event()

    def rows() -> Iterator[Row]:
        nonlocal taken
        for taken, row in enumerate(many(5_000)):
            if taken == 1_500:
                in_second_part.set()
            yield row

    def during_upload(**_: Any) -> None:
        assert in_second_part.wait(10)
        seen.append(taken)

    seen: list[int] = []
    s3.meta.events.register("before-call.s3.UploadPart", during_upload)
    read(Connection(rows()), s3)
    assert len(seen) >= 5
    assert all(rows < (number + 1) * 1_100 for number, rows in enumerate(seen, 1))
    # The next part did not overwrite a part during its upload.
    assert [row[6] for row in stored(s3)[1:]] == [str(number) for number in range(5_000)]


def test_if_the_mysql_connection_is_lost_nothing_is_left_in_s3(s3: Any, small_parts: int) -> None:
    made = calls(s3)
    with pytest.raises(OperationalError):
        read(Connection(many(2_500), last=None), s3)
    assert made[-1] == "AbortMultipartUpload"
    assert "Contents" not in s3.list_objects_v2(Bucket=BUCKET)
    assert "Uploads" not in s3.list_multipart_uploads(Bucket=BUCKET)


def test_if_s3_fails_the_upload_is_aborted_and_no_more_rows_are_read(s3: Any, small_parts: int) -> None:
    def fail(**_: Any) -> tuple[Any, dict[str, Any]]:
        error = {"Code": "SlowDown", "Message": "Please reduce your request rate."}
        response = SimpleNamespace(status_code=503, headers={}, content=b"")
        return response, {"Error": error, "ResponseMetadata": {"HTTPStatusCode": 503}}

    s3.meta.events.register("before-call.s3.UploadPart", fail)
    made = calls(s3)
    connection = Connection(many(10_000))
    with pytest.raises(Unavailable):
        read(connection, s3)
    assert made[-1] == "AbortMultipartUpload"
    assert "Uploads" not in s3.list_multipart_uploads(Bucket=BUCKET)
    assert connection.answer.unbuffered_active is False
    assert sum(1 for _ in connection.rest) > 7_000


@pytest.mark.parametrize(
    "start", ["=", "+", "-", "@", "＝", "＋", "－", "＠", "\t", "\r", "\n", "'", "", "4", "é", " ="]
)
def test_a_string_that_a_spreadsheet_would_run_gets_an_apostrophe_and_a_number_none(start: str) -> None:
    text = f"{start}1+1"
    expected = text if start in ("", "4", "é", " =") else f"'{text}"
    assert neutralise(text.encode()) == expected.encode()
    lines = as_csv([(1, "-1", None, None, None, None, 2, "", "", "-4.20", -5, "")]).decode()
    assert lines.splitlines()[1] == "1,'-1,,,,,2,,,'-4.20,-5,"


# The text contains characters that need quotes or an apostrophe, similar-looking characters, and separators.
ODD = st.text(st.sampled_from("=+-@＝＋－＠ｅ\t\r\n'\",\0 aé☕"), max_size=4)


@given(st.lists(st.tuples(*[st.none() | ODD] * 9), max_size=5))
def test_the_file_is_the_one_that_the_csv_module_writes(texts: list[tuple[str | None, ...]]) -> None:
    rows: list[Row] = [(1, *nine[:5], -2, *nine[5:8], None, nine[8]) for nine in texts]
    expected = io.StringIO(newline="")
    writer = csv.writer(expected, lineterminator="\r\n")
    writer.writerow(COLUMNS)
    for row in rows:
        writer.writerow(
            [
                cell if name in NUMBERS or not isinstance(cell, str) else neutralise(cell.encode()).decode()
                for name, cell in zip(COLUMNS, row, strict=True)
            ]
        )
    assert as_csv(rows) == ("\ufeff" + expected.getvalue()).encode()
