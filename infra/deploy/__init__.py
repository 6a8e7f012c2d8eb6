"""Deploys the whole system to AWS and to the local cloud in the same way. Only endpoint and credentials differ.

    python -m infra.deploy STAGE

1. ``stacks``: CloudFormation stacks. The first one is the bucket with the stage's releases.
2. ``project``: a generated Chalice project with the stacks' outputs as environment variables and roles. The tracked
   ``.chalice/config.json`` stays as it is.
3. ``chalice_record``: ``chalice deploy`` runs with a record that is rebuilt from what exists.
4. ``wiring``, ``api_settings``: settings that Chalice cannot make, and a check of every setting.
5. ``releases``: the deploys bucket keeps the release with everything that a rollback needs.

``deployment`` lists the steps, and ``rollback`` restores a release. A second deploy changes nothing.
"""
