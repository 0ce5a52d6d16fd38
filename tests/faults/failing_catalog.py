"""A catalog that is down, hangs, or loses its answers. `Settings.catalog` names it, like a user's own catalog."""

import threading

from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.exceptions import CommitFailedException, CommitStateUnknownException


class MoodyCatalog(SqlCatalog):
    """Fails according to its `mood`; a test sets the mood, and resets it with `calm`.

    "down": every request is refused. "hung": every request waits for the gate. "conflict": every commit is refused.
    "lost": every commit is applied, and its answer is lost.
    """

    mood = ""
    gate = threading.Event()
    reached = threading.Event()
    asked = 0

    @classmethod
    def calm(cls):
        cls.mood = ""
        cls.gate.set()

    @classmethod
    def hang(cls):
        cls.gate.clear()
        cls.reached.clear()
        cls.mood = "hung"

    @classmethod
    def _meet(cls):
        cls.asked += 1
        if cls.mood == "down":
            raise ConnectionRefusedError(111, "Connection refused")
        if cls.mood == "hung":
            cls.reached.set()
            assert cls.gate.wait(60)

    def load_table(self, identifier):
        self._meet()
        return super().load_table(identifier)

    def create_table(self, *args, **kwargs):
        self._meet()
        table = super().create_table(*args, **kwargs)
        if self.mood == "lost":
            raise CommitStateUnknownException("504 Gateway Timeout")
        return table

    def commit_table(self, table, requirements, updates):
        self._meet()
        if self.mood == "conflict":
            raise CommitFailedException("409 Conflict")
        answer = super().commit_table(table, requirements, updates)
        if self.mood == "lost":
            raise CommitStateUnknownException("504 Gateway Timeout")
        return answer
