"""The authorizer denies every request while it cannot fetch the user pool's signing keys."""

import pytest

from local.users import Users
from tests.system.faults import cut_before, truncated, unavailable
from tests.system.stack import Faulty
from tests.system.system import wait_for
from tests.system.wire import Fault

FAULTS = {"the pool returns 503": unavailable, "the connection is cut": cut_before, "half the keys arrive": truncated}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=list(FAULTS))
def test_everyone_is_denied_until_the_keys_can_be_fetched(system: Faulty, fault: Fault) -> None:
    def status() -> int:
        # Each attempt needs a new token, because API Gateway caches the authorizer's response for a token.
        token = Users(system.stack.users.file).token()
        url = f"{system.env['REST_API_URL']}/orders?limit=1"
        return system.sent_by(None).request("GET", url, Authorization=token).status

    # A new authorizer process has no keys in its cache.
    system.kill_all("authorize")
    with system.wire.fault("cognito-idp:.*", fault):
        assert status() == 403
    wait_for(lambda: status() == 200, "the keys")
