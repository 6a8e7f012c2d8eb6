"""Patches for SNS."""

import json
from typing import Any


def lambda_subscribers() -> None:
    """AWS invokes a function that subscribes to a topic asynchronously, with two retries and a failure destination. On
    AWS, every message also has the fields ``Subject`` and ``MessageAttributes``.

    MiniStack invokes a subscribed function only once, and omits empty fields. Chalice's SNS event requires ``Subject``
    and ``MessageAttributes``. The function ``record_notification`` must not lose a message. This patch reuses the
    retries that MiniStack implements for asynchronous invocations.
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
