"""Contains the data that all steps of a deploy or rollback share. Also asks a person to confirm changes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from infra.deploy import preflight, stacks
from infra.deploy.preflight import CallerIdentity
from infra.deploy.stacks import Change, Stack
from infra.deploy.target import Clients, Say, Target

# Shows the lines that describe a change, and raises ``DeployError`` if a person declines the change.
Ask = Callable[[list[str]], None]


@dataclass(frozen=True)
class Context:
    target: Target
    clients: Clients
    caller: CallerIdentity
    ask: Ask
    say: Say
    # IAM's policy simulator is sometimes wrong, so the permission check can be skipped.
    check_permissions: bool = True

    def template(self, file: str) -> str:
        """Returns a template with the stage name filled into the names of tables and buckets."""
        return stacks.template(file, {"Stage": self.target.stage, "AWS::AccountId": self.caller.account})

    def stack(self, part: str, body: str, parameters: Mapping[str, str] | None = None) -> Stack:
        """Returns the desired state of one of the stage's stacks."""
        given = {"Stage": self.target.stage, "Local": str(self.target.local).lower(), **(parameters or {})}
        return Stack(self.target.stack(part), body, given, {"app": "cafe", "stage": self.target.stage})


class Changes:
    """Applies the changes of a deploy or rollback. The account is checked before the first change.

    A person confirms each change. After each confirmation, ``begin`` records that a deploy has begun.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._checked = False
        self.begin: Callable[[], None] = lambda: None

    def confirm(self, lines: list[str]) -> None:
        """Asks a person to confirm a change, and raises ``DeployError`` if the person declines."""
        if not self._checked:
            context = self._context
            preflight.run(context.target, context.clients, context.caller, context.check_permissions, context.say)
            self._checked = True
        self._context.ask(lines)

    def apply(self, change: Change, before: Callable[[], None] = lambda: None, ask: bool = True) -> None:
        """Applies a change set. If ``ask`` is true, a person must first confirm it. ``before`` is called last."""
        cfn = self._context.clients("cloudformation")
        try:
            if ask:
                self.confirm(change.lines)
        except BaseException:  # including Ctrl-C
            stacks.discard(change, cfn)
            raise
        self.begin()
        before()
        stacks.apply(change, cfn, self._context.say)
