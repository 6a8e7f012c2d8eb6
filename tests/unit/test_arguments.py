"""Tests that a command with wrong arguments ends with a one-line error."""

from collections.abc import Callable

import pytest

from infra import trace, users
from infra.deploy import __main__ as deploy
from local import __main__ as local

NAME = "argument STAGE: must be at most 20 lower-case letters, digits and single hyphens; got "
TIME = "must be a duration such as 90s, 15m, 12h or 7d; got "


@pytest.mark.parametrize(
    ("command", "arguments", "problem"),
    [
        *(
            (trace.main, ["o-1", "prod", each], f'argument SINCE: {TIME}"{each}"')
            for each in ("0d", "1w", "d", "99999d")
        ),
        (trace.main, ["o-1", "Prod_"], f'{NAME}"Prod_"'),
        (users.main, ["ana", "staff", "pr od"], f'{NAME}"pr od"'),
        (deploy.main, ["prod-", "--yes"], f'{NAME}"prod-"'),
        (local.main, ["logs", "--since", "potato"], f'argument --since: {TIME}"potato"'),
        (local.main, ["trace", "o-1", "potato"], f'argument SINCE: {TIME}"potato"'),
        (local.main, ["redrive", "PROD"], f'{NAME}"PROD"'),
    ],
)
def test_a_wrong_argument_is_one_line_that_says_what_to_give(
    command: Callable[[list[str]], object], arguments: list[str], problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        command(arguments)
    assert capsys.readouterr().err == f"error: {problem}\n"


@pytest.mark.parametrize("command", [trace.main, users.main])
def test_without_a_region_one_line_says_what_to_set(
    command: Callable[[list[str]], int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("AWS_DEFAULT_REGION", "AWS_REGION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", "/dev/null")
    assert command(["ana", "prod"] if command is trace.main else ["ana", "staff", "prod"]) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert line.endswith("there is no region: set AWS_DEFAULT_REGION, or set `region` in the AWS profile")
