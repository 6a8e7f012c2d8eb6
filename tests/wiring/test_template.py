"""Tests what infra/template.py adds to the templates in infra/, and what it leaves unchanged."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from infra import template
from infra.functions import FUNCTIONS
from infra.monitoring import dashboard
from tests.template import load
from tests.wiring.stage import MACHINES, ROOT, rendered


def test_everything_that_is_plain_cloudformation_stays_as_it_is_written() -> None:
    written, sent = load((ROOT / "infra" / "resources.yaml").read_text()), load(rendered())
    del sent["Resources"]["TraceQuery"]["Properties"]["LogGroupNames"]
    for resource in sent["Resources"].values():
        if resource["Type"] == "AWS::IAM::Role":
            del resource["Properties"]["PermissionsBoundary"]
        resource["Properties"].pop(template.TAGGED.get(resource["Type"]), None)
    for name, definition in MACHINES.items():
        assert written["Resources"][name]["Properties"].pop("DefinitionS3Location") == definition
        text = sent["Resources"][name]["Properties"].pop("DefinitionString")
        assert json.loads(text) == json.loads((ROOT / "infra" / definition).read_text())
    for name, resource in written["Resources"].items():
        if not resource["Type"].startswith("Cafe::"):
            for key in template.GENERATING:
                resource.pop(key, None)
            assert sent["Resources"][name] == resource
    assert {section: sent[section] for section in ("Parameters", "Conditions")} == {
        section: written[section] for section in ("Parameters", "Conditions")
    }
    assert sent["Outputs"].items() >= written["Outputs"].items()


def test_generated_resources_keep_the_logical_ids_of_deployed_stacks() -> None:
    """CloudFormation replaces a resource whose logical id changes, so a log group would lose its logs."""
    resources, outputs = load(rendered())["Resources"], load(rendered())["Outputs"]
    ids = [each.logical_id for each in FUNCTIONS]
    assert {"Api", "StoreOrders", "RotatePassword"} < set(ids)
    for each in ids:
        assert resources[f"{each}Role"]["Type"] == "AWS::IAM::Role"
        assert resources[f"{each}Logs"]["Type"] == "AWS::Logs::LogGroup"
        assert outputs[f"{each}RoleArn"] == {"Value": {"Fn::GetAtt": [f"{each}Role", "Arn"]}}
    alarms = {name for name, each in resources.items() if each["Type"] == "AWS::CloudWatch::Alarm"}
    assert alarms > {"OrdersDeadAlarm", "StreamWaitsAlarm", "Api5xxAlarm", "ApiFunctionErrorsAlarm"}
    assert alarms > {"StoreOrdersThrottlesAlarm", "MeasureBucketsSlowAlarm", "ReceiveUploadLostAlarm"}
    assert {"VpcAccess", "Dashboard", "TraceQuery"} < resources.keys()


@pytest.mark.parametrize("file", template.FILES)
def test_the_sent_template_is_yaml_with_a_line_for_each_resource(file: str) -> None:
    text = rendered(file)
    assert load(text) == template.expanded(file)
    assert not text.startswith("{")
    assert all(f"\n  {name}: {{" in text for name in load(text)["Resources"])


def test_the_command_writes_every_template(tmp_path: Path) -> None:
    template.main(tmp_path / "templates")
    assert {each.name for each in (tmp_path / "templates").iterdir()} == {
        each.name for each in (ROOT / "infra").glob("*.yaml")
    }


@pytest.mark.parametrize(
    ("before", "after", "error"),
    [
        ("  StoreOrders:\n", "  StoreOders:\n", "StoreOders: infra/functions.py has no function with this logical id"),
        ("    Type: Cafe::Function\n", "    Type: Cafe::Other\n", "Cafe::Other"),
        ("Name: orders-dead,", "Name: orders-wait,", "OrdersWaitAlarm is declared twice"),
        ("!GetAtt OrdersQueue.Arn", "!GetAtt {a: b}", "a short form must be followed by a string or a list"),
    ],
)
def test_an_error_in_a_template_is_named(
    before: str, after: str, error: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for each in (ROOT / "infra").iterdir():
        if each.suffix in (".yaml", ".json"):
            (tmp_path / each.name).write_text(each.read_text())
    text = (tmp_path / "resources.yaml").read_text()
    assert before in text
    (tmp_path / "resources.yaml").write_text(text.replace(before, after, 1))
    monkeypatch.setattr(template, "FOLDER", tmp_path)
    with pytest.raises((ValueError, TypeError), match=error):
        template.expanded()


def test_a_row_of_the_dashboard_has_widgets_of_the_same_width() -> None:
    widget = {"Title": "x", "Statistic": "Sum", "Period": 60, "Metrics": [["Cafe", "x"]]}
    made = json.loads(dashboard([[widget, widget, widget], [widget]]))["widgets"]
    assert [(each["x"], each["y"], each["width"]) for each in made] == [(0, 0, 8), (8, 0, 8), (16, 0, 8), (0, 6, 24)]
