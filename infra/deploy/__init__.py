"""Deploys the whole system to AWS and to the local cloud in the same way: only the endpoint and the credentials differ.

    python -m infra.deploy STAGE

1. ``stacks``: the CloudFormation stacks. The first stack contains the bucket for the stage's releases.
2. ``project``: a generated Chalice project with the stacks' outputs as environment variables and roles. The tracked
   ``.chalice/config.json`` does not change.
3. ``chalice_record``: the record with which ``chalice deploy`` runs, rebuilt from the resources that exist.
4. ``wiring``, ``api_settings``: the settings that Chalice cannot apply, and a check of every setting.
5. ``releases``: the releases in the deploys bucket, with everything that a rollback needs.

``deployment`` lists the steps, and ``rollback`` restores a release. Deploying the same code again changes nothing.
"""
