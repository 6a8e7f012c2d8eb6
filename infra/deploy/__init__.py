"""Deploys the whole system, the same way onto AWS and onto the local cloud: only endpoint and credentials differ.

    python -m infra.deploy STAGE

1. ``stacks``: the CloudFormation stacks. First the one of the deploys bucket, where a stage's deployed state is kept.
2. ``project``: the outputs, as environment variables and roles, in the stage's Chalice configuration. That is generated
   in a project folder of its own, which links the code, so that the tracked ``.chalice/config.json`` stays as it is.
3. ``project``, ``record``: ``chalice deploy``, with a record of what is deployed already, made from what is there.
4. ``wiring``: what Chalice cannot set, on event source mappings, on asynchronous invocation and on subscriptions; and a
   check that everything is as asked.
5. ``releases``: the release is kept in the deploys bucket, with all that it takes to put it back.

A second run finds that nothing has to change, and changes nothing.
"""
