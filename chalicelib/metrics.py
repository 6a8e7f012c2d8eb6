"""Metrics in CloudWatch's embedded metric format: a log record of which CloudWatch takes the figures by itself.

https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html

They are to watch by, and not to settle accounts: CloudWatch may take a record twice, and a function that is cut off
before it has logged is not counted.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

from chalicelib.logs import logger
from chalicelib.settings import stage

NAMESPACE = "Cafe"
# All that there are, each with its unit. Of the orders that were accepted each is stored, doubled (the same was stored
# before) or rejected in the end, or it waits, in the queue or as a dead letter.
UNITS = {
    "OrdersAccepted": "Count",
    "OrdersStored": "Count",
    "OrdersDoubled": "Count",
    "OrdersRejected": "Count",
    "Reports": "Count",
    "ReportDuration": "Seconds",
    "RowsGood": "Count",
    "RowsBad": "Count",
    "BytesMeasured": "Bytes",
}

log = logger("metrics")


def emit(figures: Mapping[str, float], **dimensions: str) -> None:
    """Logs those of ``figures`` that are not 0, by the stage and by ``dimensions``, of few values each.

    Each combination of values is a metric of its own, and has a price.
    """
    given = {name: figure for name, figure in figures.items() if figure}
    if not given:
        return
    dimensions = {"stage": stage(), **dimensions}
    directive = {
        "Namespace": NAMESPACE,
        "Dimensions": [list(dimensions)],
        "Metrics": [{"Name": name, "Unit": UNITS[name]} for name in given],
    }
    metadata = {"Timestamp": int(time.time() * 1000), "CloudWatchMetrics": [directive]}
    # As the message itself: the formatter leaves out extra fields that begin with an underscore.
    log.info({"message": "metrics", "_aws": metadata, **dimensions, **given})
