"""Flow 3, whole: a file in the bucket -> receive_upload -> CloudWatch Logs, MySQL, SNS -> inbox."""

import json
import secrets

import pytest

from tests.system.system import System, wait_for

HEADER = "supplier_name,type,product_name,price,description,quantity\n"


def key(suffix: str = ".csv", folder: str = "inventory") -> str:
    return f"{folder}/{secrets.token_hex(4)}{suffix}"


def supplier() -> str:
    return f"Supplier {secrets.token_hex(4)}"


def stock(system: System, name: str) -> dict[str, int]:
    rows = system.sql(
        "SELECT product_name, quantity FROM beans JOIN suppliers ON supplier_id = suppliers.id WHERE name = %s", name
    )
    return dict(rows)


def test_an_inventory_is_logged_imported_and_announced_with_its_bad_rows(system: System) -> None:
    name = supplier()
    uploaded = system.upload(
        key(), HEADER + f"{name},Arabica,Good,12.50,,5\n{name},Arabica,Bad,1,,-5\n{name},Arabica,Worse,1,,many\n"
    )
    told = system.notification(uploaded, "upload")
    assert stock(system, name) == {"Good": 5}
    assert "line 3" in told["message"]
    assert "line 4" in told["message"]

    logs = system.aws("logs")
    record = wait_for(
        lambda: next(
            (
                json.loads(each["message"])
                for each in logs.filter_log_events(logGroupName="/aws/lambda/cafe-dev-receive_upload")["events"]
                if uploaded in each["message"] and each["message"].startswith("{")
            ),
            None,
        ),
        "the log record",
    )
    assert record["key"] == uploaded


def test_importing_sets_the_quantity_and_never_adds(system: System) -> None:
    name = supplier()
    for quantity in (5, 7):
        uploaded = system.upload(key(), HEADER + f"{name},Arabica,Geisha,12.50,,{quantity}\n")
        system.notification(uploaded, "upload")
    assert stock(system, name) == {"Geisha": 7}


@pytest.mark.parametrize(
    "part", ["two words", "a+b", "100%", "%2F", "über-漢字", "a&b=c", "'quoted'", "two\nlines", "\x07"]
)
def test_a_key_with_any_characters_is_found(system: System, part: str) -> None:
    name = supplier()
    uploaded = system.upload(f"inventory/{secrets.token_hex(3)} {part}.csv", HEADER + f"{name},x,y,1,,3\n")
    # What cannot be printed is told with escapes.
    system.notification(uploaded if uploaded.isprintable() else repr(uploaded), "upload")
    assert stock(system, name) == {"y": 3}


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"", "empty"),
        (b"Hill,Arabica,Geisha,1,,5\n", "column"),
        (b"supplier_name,type,product_name,price,description\nHill,x,y,1,\n", "quantity"),
        (HEADER.replace("quantity", "quantity,colour").encode() + b"Hill,x,y,1,,5,red\n", "colour"),
        (HEADER.replace("price", "type").encode() + b"Hill,x,x,y,,5\n", "type"),
        (HEADER.encode() + "Bäcker,x,y,1,,5\n".encode("latin-1"), "UTF-8"),
        (bytes(range(256)) * 10, ""),
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 100, ""),
    ],
    ids=["empty", "no header", "missing", "extra", "repeated", "encoding", "binary", "picture"],
)
def test_a_file_that_is_no_inventory_is_refused_and_told_why(system: System, body: bytes, expected: str) -> None:
    before = system.sql("SELECT COUNT(*), SUM(quantity) FROM beans")
    uploaded = system.upload(key(), body)
    told = system.notification(uploaded, "upload")
    assert expected in told["message"]
    assert system.sql("SELECT COUNT(*), SUM(quantity) FROM beans") == before


def test_a_quoted_newline_a_byte_order_mark_and_another_order_of_columns_are_fine(system: System) -> None:
    name = supplier()
    text = f'quantity,product_name,type,supplier_name,description,price\n4,"Two\nlines",x,{name},,1\n'
    uploaded = system.upload(key(), b"\xef\xbb\xbf" + text.encode())
    system.notification(uploaded, "upload")
    assert list(stock(system, name).values()) == [4]


def test_a_file_of_100_mb_is_refused_in_words(system: System) -> None:
    row = b"Large supplier,Arabica,Geisha,12.50,,5\n"
    uploaded = system.upload(key(), HEADER.encode() + row * (100_000_000 // len(row)))
    told = system.notification(uploaded, "upload")
    system.aws("s3").delete_object(Bucket=system.env["UPLOADS_BUCKET"], Key=uploaded)
    assert "MB" in told["message"]
    assert stock(system, "Large supplier") == {}


def test_another_file_is_received_and_not_imported(system: System) -> None:
    uploaded = system.upload(key(".jpg", "photos"), b"no picture")
    assert "received" in system.notification(uploaded, "upload")["message"]


def test_an_upload_delivered_again_changes_nothing(system: System) -> None:
    name = supplier()
    uploaded = system.upload(key(), HEADER + f"{name},x,y,1,,5\n")
    system.notification(uploaded, "upload")
    system.sql("UPDATE beans JOIN suppliers ON supplier_id = suppliers.id SET quantity = 1 WHERE name = %s", name)
    # MiniStack's own sequencer is higher than any of these.
    for sequencer in ("00", "0A"):
        ok, error = system.invoke("receive_upload", system.s3_event(uploaded, sequencer))
        assert ok, error
    assert stock(system, name) == {"y": 1}
    assert len(system.notifications(uploaded, "upload")) == 1


def test_an_object_that_is_gone_before_it_is_read_is_told(system: System) -> None:
    gone = key()
    ok, error = system.invoke("receive_upload", system.s3_event(gone, etag="0" * 32))
    assert ok, error
    assert "deleted before it could be read" in system.notification(gone, "upload")["message"]


def test_an_object_that_was_overwritten_is_left_to_its_own_event(system: System) -> None:
    name, sent = supplier(), key()
    system.upload(sent, HEADER + f"{name},x,y,1,,5\n")
    system.notification(sent, "upload")
    ok, error = system.invoke("receive_upload", system.s3_event(sent, "F" * 32, etag="0" * 32))
    assert ok, error
    assert stock(system, name) == {"y": 5}


def test_the_test_event_of_s3_is_taken(system: System) -> None:
    test = {"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": system.env["UPLOADS_BUCKET"]}
    ok, error = system.invoke("receive_upload", test)
    assert ok, error


def test_an_upload_waits_for_a_database_that_was_restarted(system: System) -> None:
    name = supplier()
    system.notification(system.upload(key(), HEADER + f"{name},x,first,1,,5\n"), "upload")
    database = system.stack.database
    database.process.stop()
    try:
        uploaded = system.upload(key(), HEADER + f"{name},x,second,1,,5\n")
        logs = system.aws("logs")
        wait_for(
            lambda: [
                each
                for each in logs.filter_log_events(logGroupName="/aws/lambda/cafe-dev-receive_upload")["events"]
                if "DatabaseUnavailable" in each["message"]
            ],
            "a try without the database",
        )
    finally:
        database.launch()
    # On AWS the event comes again after one and after two minutes.
    wait_for(lambda: system.notifications(uploaded, "upload"), "the import after the restart", seconds=240)
    assert stock(system, name) == {"first": 5, "second": 5}
