"""Tests that the table in infra/functions.py agrees with app.py, chalicelib and the deployed settings."""

from __future__ import annotations

from chalice.app import Chalice

from chalicelib.dead_letters import letters
from infra import functions
from infra.deploy import wiring
from infra.functions import FUNCTIONS, Trigger
from tests.wiring.stage import as_variables
from tests.wiring.template import Template

# Maps each of Chalice's event classes to its trigger, and to the attribute that names its source.
EVENTS = {
    "SQSEventConfig": (Trigger.QUEUE, "queue_arn"),
    "DynamoDBEventConfig": (Trigger.STREAM, "stream_arn"),
    "S3EventConfig": (Trigger.BUCKET, "bucket"),
    "SNSEventConfig": (Trigger.TOPIC, "topic"),
}


def test_the_table_has_every_function_in_app_py_with_its_trigger(app: Chalice, template: Template) -> None:
    outputs = as_variables(template.outputs)
    declared = {"api_handler": (Trigger.API, "")}
    declared |= {each.name: (Trigger.AUTHORIZER, "") for each in app.builtin_auth_handlers}
    for each in app.event_sources:
        trigger, attribute = EVENTS[type(each).__name__]
        declared[each.name] = (trigger, getattr(each, attribute))
    found = {each.name: (each.trigger, outputs[each.source] if each.source else "") for each in FUNCTIONS}
    assert declared == {name: found[name] for name in declared}
    assert found.keys() - declared.keys() == {each.name for each in app.pure_lambda_functions}


def test_chalices_configuration_has_the_timeouts_and_memory_of_the_table() -> None:
    """The command ``.venv/bin/python -m infra.functions`` writes Chalice's configuration."""
    assert functions.CONFIG.read_text() == functions.config_text()


def test_every_function_whose_caller_does_not_wait_has_a_kind_of_dead_letter(template: Template) -> None:
    kinds = {each.name: each.dead_letter for each in FUNCTIONS if each.asynchronous}
    assert kinds == letters.FUNCTIONS
    assert {each.dead_letter for each in FUNCTIONS if each.dead_letter} <= set(letters.KINDS)
    # S3 and SNS do not wait for the functions they invoke, and a redrive does not wait for announce_orders.
    events = functions.sources(Trigger.BUCKET, Trigger.TOPIC).keys() | {"announce_orders"}
    assert wiring.invocations(as_variables(template.outputs)).keys() == events


def test_every_mapping_reads_the_source_of_its_function(template: Template) -> None:
    outputs = as_variables(template.outputs)
    assert wiring.mappings(outputs).keys() == functions.sources(Trigger.QUEUE, Trigger.STREAM).keys()
