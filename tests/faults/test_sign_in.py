"""The authorizer, while the user pool does not give its keys: it lets nobody in, and answers all the same."""

import pytest

from local.users import Users
from tests.system.stack import Faulty
from tests.system.system import wait_for
from tests.system.wire import Fault, cut_before, truncated, unavailable

FAULTS = {"the pool answers 503": unavailable, "the connection is cut": cut_before, "half of the keys come": truncated}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=list(FAULTS))
def test_without_the_keys_nobody_is_let_in_and_with_them_everybody(system: Faulty, fault: Fault) -> None:
    def status(front: str) -> int:
        # Another token each time, for API Gateway keeps the answer for one.
        token = Users(system.stack.users.file).token()
        answer = system.sent_by(None).request("GET", f"{system.env[front]}/orders?limit=1", Authorization=token)
        return answer.status

    # New processes, which do not have the keys yet.
    system.kill_all("authorize")
    system.stack.api.stop()
    system.stack._start_api()
    with system.wire.fault("cognito-idp:.*", fault):
        assert [status(front) for front in ("CAFE_API_URL", "REST_API_URL")] == [403, 403]
    for front in ("CAFE_API_URL", "REST_API_URL"):
        wait_for(lambda front=front: status(front) == 200, "the keys")  # type: ignore[misc]
