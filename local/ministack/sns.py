"""Patches for SNS."""

import json
from typing import Any


def lambda_subscribers() -> None:
    """AWS sends ``Subject`` and ``MessageAttributes`` with every message, and invokes a subscribed function
    asynchronously: it retries twice, and then uses the function's failure destination.

    MiniStack omits empty fields and invokes the function once. Chalice's SNS event needs these fields, and
    ``record_notification`` must not lose a message. MiniStack already implements retries, so this patch reuses them.
    """
    from ministack.services import lambda_svc, sns

    def deliver(endpoint: str, envelope: str, _topic_arn: str, subscription_arn: str, *_others: Any) -> None:
        function, config, _name = lambda_svc._get_func_record_for_ref(endpoint)
        if not function or not config:
            return
        record = {
            "EventVersion": "1.0",
            "EventSubscriptionArn": subscription_arn,
            "EventSource": "aws:sns",
            "Sns": {"Subject": None, "MessageAttributes": {}, **json.loads(envelope)},
        }
        lambda_svc.invoke_async_with_retry(
            lambda_svc._execution_record_for_config(function, config), {"Records": [record]}
        )

    sns._deliver_to_lambda = deliver
