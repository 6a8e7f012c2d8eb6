"""Writes metrics as log records in CloudWatch's embedded metric format.

AWS documents the format at
https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html.

The metrics are not exact enough for accounting, because CloudWatch may read a log record twice.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

from chalicelib.logs import logger
from chalicelib.settings import stage

NAMESPACE = "Cafe"
# This dictionary contains the unit of each metric. Each accepted order is later also counted as stored, as doubled
# (already stored) or as rejected. An order that is still in the queue or that became a dead letter is counted only as
# accepted.
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
    "WaitSeconds": "Seconds",
}

log = logger("metrics")


def emit(figures: Mapping[str, float], **dimensions: str) -> None:
    """Logs the nonzero values in ``figures`` as metrics. The metric dimensions are the stage and ``dimensions``.

    Each combination of dimension values is billed as a separate metric, so a dimension must have few values.
    """
    nonzero = {name: figure for name, figure in figures.items() if figure}
    if not nonzero:
        return
    dimensions = {"stage": stage(), **dimensions}
    directive = {
        "Namespace": NAMESPACE,
        "Dimensions": [list(dimensions)],
        "Metrics": [{"Name": name, "Unit": UNITS[name]} for name in nonzero],
    }
    metadata = {"Timestamp": int(time.time() * 1000), "CloudWatchMetrics": [directive]}
    # The metadata is part of the message, because the formatter drops ``extra`` fields that begin with an underscore.
    log.info({"message": "metrics", "_aws": metadata, **dimensions, **nonzero})
