"""Deploys the whole system to AWS or to the local cloud.

The command ``python -m infra.deploy STAGE`` works the same way for AWS and for the local cloud. AWS and the local cloud
differ only in the endpoint and the credentials.

``stacks`` updates the CloudFormation stacks. The first stack contains the bucket for the stage's releases. ``project``
generates a Chalice project, which contains the stacks' outputs as environment variables and roles. The tracked file
``.chalice/config.json`` does not change. ``chalice_record`` rebuilds Chalice's record of deployed resources from the
resources that exist. ``wiring`` and ``api_settings`` apply the settings that Chalice cannot apply, and check every
setting. ``releases`` stores each release in the deploys bucket, with everything that a rollback needs.

``deployment`` lists the steps of a deploy, and ``rollback`` restores a release. Deploying the same code again changes
nothing.
"""
