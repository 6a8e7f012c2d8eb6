"""Handles the events of uploaded files, and the API's requests, which have the same format."""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote_plus

from chalicelib import correlation
from chalicelib.logs import logger
from chalicelib.uploads import outcomes
from chalicelib.uploads.jobs import Jobs
from chalicelib.uploads.upload import Upload

log = logger("uploads")


def receive(event: dict[str, Any], jobs: Jobs) -> None:
    """Handles each record in an event. Raises ``Unavailable`` if an AWS service or MySQL is temporarily unavailable."""
    if "Records" not in event:
        log.info("S3 test event ignored", extra={"event": event.get("Event")})
        return
    requests = {"Cafe:Preview": jobs.preview, "Cafe:Apply": jobs.apply, "Cafe:Undo": jobs.undo}
    for record in event["Records"]:
        if record["eventName"] not in requests and not record["eventName"].startswith("ObjectCreated:"):
            key = unquote_plus(record["s3"]["object"]["key"])
            log.info("S3 event ignored", extra={"eventName": record["eventName"], "key": key})
            continue
        upload = Upload.from_record(record)
        with correlation.about(upload.correlation_id):
            log.info("upload received", extra=upload.log_fields())
            if upload.event in requests:
                requests[upload.event](upload)
            elif upload.is_folder():
                log.info("folder ignored", extra={"key": upload.key})
            elif upload.is_csv_in("inventory"):
                jobs.import_file(upload)
            elif upload.is_csv_in("previews"):
                jobs.preview(upload)
            else:
                jobs.publish(outcomes.received(upload))
