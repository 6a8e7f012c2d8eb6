"""Deploys the whole system to AWS or to the local cloud.

The command ``python -m infra.deploy STAGE`` works the same way for AWS and for the local cloud. AWS and the local cloud
differ only in the endpoint and the credentials.

``stacks`` updates the CloudFormation stacks. The first stack contains the bucket for the stage's releases. ``project``
generates a Chalice project with environment variables and roles from the stack outputs. The file
``.chalice/config.json`` in the repository does not change. ``chalice_record`` rebuilds Chalice's record of deployed
resources from the resources that exist. ``wiring`` and ``api_settings`` apply the settings that Chalice cannot apply,
and then check all settings. ``releases`` stores each release in the deploys bucket, with everything needed for a
rollback.

``deployment`` lists the steps of a deploy, and ``rollback`` restores a release. Deploying the same code again changes
nothing.
"""
