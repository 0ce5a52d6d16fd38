"""A catalog whose answers get lost. `Settings.catalog` names it, like a user's own catalog."""

from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.exceptions import CommitFailedException, CommitStateUnknownException

ERRORS = {"conflict": CommitFailedException, "unknown": CommitStateUnknownException, "socket": ConnectionResetError}


class FlakyCatalog(SqlCatalog):
    """Commits as scripted: "conflict" raises, "applied conflict" commits, then raises."""

    script: list[str] = []  # noqa: RUF012 - the tests set it
    meanwhile = None  # called once, before a commit

    def commit_table(self, table, requirements, updates):
        if FlakyCatalog.meanwhile is not None:
            call, FlakyCatalog.meanwhile = FlakyCatalog.meanwhile, None
            call()
        step = FlakyCatalog.script.pop(0) if FlakyCatalog.script else ""
        if step.startswith("applied"):
            super().commit_table(table, requirements, updates)
        if step:
            raise ERRORS[step.split()[-1]](step)
        return super().commit_table(table, requirements, updates)
