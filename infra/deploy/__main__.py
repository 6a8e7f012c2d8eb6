"""Implements the command ``python -m infra.deploy STAGE``."""

from __future__ import annotations

import atexit
import gc
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from infra import arguments as types
from infra.deploy import preflight, project, removal
from infra.deploy.mysql_location import MysqlLocation
from infra.deploy.resources_of_stage import existing_resources, lines_by_kind
from infra.deploy.stage import Stage
from infra.deploy.target import FAILURES, REPOSITORY, Clients, DeployError, Target, cached_clients


def main(arguments: list[str] | None = None) -> int:
    parser = types.Parser(
        prog="python -m infra.deploy",
        description="Deploys a stage, restores its previous release, or removes the stage.",
    )
    about = f"the stage's name: {types.STAGE_RULE}"
    parser.add_argument("stage", metavar="STAGE", type=types.stage, help=about)
    parser.add_argument(
        "--project-dir", type=Path, default=REPOSITORY / ".stages", help="the folder for the generated Chalice project"
    )
    parser.add_argument("--local", action="store_true", help="deploy to the local cloud instead of AWS")
    parser.add_argument(
        "--parameter", action="append", default=[], metavar="NAME=VALUE", help="set a template parameter"
    )
    parser.add_argument(
        "--origin", action="append", default=[], metavar="URL", help="an additional web origin that serves the console"
    )
    parser.add_argument("--rollback", action="store_true", help="restore the previous release")
    parser.add_argument("--destroy", action="store_true", help="remove the stage and all its data")
    parser.add_argument(
        "--keep-data", action="store_true", help="with --destroy, keep the database, tables and buckets"
    )
    parser.add_argument(
        "--delete-data", metavar="STAGE", help="with --destroy and --yes, the stage's name again, to delete its data"
    )
    parser.add_argument("--unchecked", action="store_true", help="do not check the caller's permissions with IAM")
    parser.add_argument("--yes", action="store_true", help="apply changes without asking")
    given = parser.parse_args(arguments)
    if any("=" not in each for each in given.parameter):
        parser.error("--parameter: must be NAME=VALUE")
    if given.destroy and given.yes and not given.keep_data and given.delete_data != given.stage:
        parser.error(
            f"--yes alone does not delete data: add --delete-data {given.stage} (make: DELETE_DATA={given.stage}), "
            "or keep the data with --keep-data (make: KEEP_DATA=1)"
        )
    try:
        database = MysqlLocation.from_variables(os.environ)
    except ValueError as error:
        parser.error(str(error))
    if given.local and not database and not given.destroy and not given.rollback:
        parser.error("DB_SECRET_ARN is not set: set it, because the local cloud cannot create a database")
    target = Target(
        stage=given.stage,
        project=given.project_dir.resolve(),
        local=given.local,
        parameters=dict(each.split("=", 1) for each in given.parameter),
        database=database,
        origins=tuple(given.origin),
    )
    clients = cached_clients()
    try:
        project.require_runtime()
        caller = preflight.caller_identity(clients)
        say(str(caller))
        stage = Stage(target, clients, caller, Question(given.yes), say, check_permissions=not given.unchecked)
        if given.destroy:
            if not (given.yes or _confirms_removal(target, clients, caller.account, given.keep_data)):
                return 1
            removal.destroy(target, clients, caller.account, given.keep_data, say)
        else:
            outputs = stage.rollback() if given.rollback else stage.deploy()
            if not given.local:
                _show_addresses(target, outputs)
    except (*FAILURES, EOFError) as error:
        print(f"deploy: {error}", file=sys.stderr)
        return 1
    return 0


def _show_addresses(target: Target, outputs: Mapping[str, str]) -> None:
    say(f"\n{target.stage} serves")
    for name in ("REST_API_URL", "UPLOADS_BUCKET", "REPORTS_BUCKET", "TOPIC_ARN", "ALARMS_TOPIC_ARN", "USER_POOL_ID"):
        say(f"  {name:<16}  {outputs[name]}")
    say(f"  all outputs       {target.project / f'{target.stage}.outputs.json'}")


def _confirms_removal(target: Target, clients: Clients, account: str, keep_data: bool) -> bool:
    resources = existing_resources(target, clients, account)
    say(f"Resources of {target.stage}:\n" + "\n".join(lines_by_kind(resources)))
    removed = "everything except its data" if keep_data else "everything including its data"
    if input(f"Type {target.stage} to remove {removed}: ") == target.stage:
        return True
    say("nothing was removed")
    return False


def say(line: str) -> None:
    print(line, flush=True)


class Question:
    """Shows a change and asks for confirmation."""

    def __init__(self, yes: bool) -> None:
        self._yes = yes

    def __call__(self, lines: list[str]) -> None:
        say("\n".join(lines))
        if self._yes:
            return
        try:
            answer = input("Apply this change? yes, no, or all (this change and all later changes): ").strip().lower()
        except EOFError:
            raise DeployError("there is no terminal to ask for confirmation: use --yes to apply every change") from None
        if answer not in ("y", "yes", "a", "all"):
            raise DeployError("declined")
        self._yes = answer in ("a", "all")


if __name__ == "__main__":
    # At exit, Python searches for reference cycles, which takes 0.1 s. The search skips frozen objects.
    atexit.register(gc.freeze)
    sys.exit(main())
