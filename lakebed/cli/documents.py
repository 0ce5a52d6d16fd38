"""The commands of saved documents: `save`, `list`, `show` and `delete`, for cohorts and for datasets."""

# Without `from __future__ import annotations`: the annotations of the commands below name local variables.

from collections.abc import Callable, Mapping
from typing import Annotated, Any

import msgspec
import typer

from lakebed.cli.options import AsJson, read_document
from lakebed.cli.output import print_facts, print_table
from lakebed.cli.place import Place, for_object
from lakebed.clients.client import Client, Table

__all__ = ["COHORTS", "DATASETS"]


class Documents(msgspec.Struct, frozen=True, kw_only=True):
    """One kind of document, and its commands.

    Attributes:
        noun: the singular; the verbs are `save_{noun}`, `{noun}s`, `{noun}` and `delete_{noun}`.
        content: the name of the document itself, as an argument and in the answer.
        about: the help of the group.
        help: the help of each command.
        name_help: the help of the argument NAME.
        content_help: the help of the document's argument.
        content_of: reads the document from a saved definition's body.
        more: further facts that `show` prints.
    """

    noun: str
    content: str
    about: str
    help: Mapping[str, str]
    name_help: str
    content_help: str
    content_of: Callable[[Any], Any]
    more: Callable[[Client, str], dict[str, Any]] = lambda _client, _name: {}

    def register(self, app: typer.Typer) -> None:
        """Add the commands to `app`."""
        group = typer.Typer(no_args_is_help=True, help=self.about)
        for name, command in self._commands().items():
            group.command(name, help=self.help[name])(for_object(command))
        app.add_typer(group, name=f"{self.noun}s")

    def record(self, definition: Any) -> dict[str, Any]:
        """A saved definition as a record with the field names of the HTTP API."""
        facts = {"name": definition.name, "version": definition.version, "savedAt": definition.at.isoformat()}
        return facts | {self.content: self.content_of(definition.body)}

    def _commands(self) -> dict[str, Callable[..., None]]:
        name_argument = Annotated[str, typer.Argument(metavar="NAME", help=self.name_help)]
        content_argument = Annotated[str, typer.Argument(metavar=self.content, help=self.content_help)]

        def save(place: Place, document: name_argument, content: content_argument, as_json: AsJson = False) -> None:
            body = read_document(content, self.content)
            with place.client() as client:
                print_facts(self.record(client.call(f"save_{self.noun}", document, body)), as_json=as_json)

        def list_(place: Place, as_json: AsJson = False) -> None:
            with place.client() as client:
                records = [self.record(definition) for definition in client.call(f"{self.noun}s")]
            print_table(Table.of(records, ("name", "version", "savedAt", self.content)), as_json=as_json)

        def show(place: Place, document: name_argument, as_json: AsJson = False) -> None:
            with place.client() as client:
                facts = self.record(client.call(self.noun, document)) | self.more(client, document)
            print_facts(facts, as_json=as_json)

        def delete(place: Place, document: name_argument, as_json: AsJson = False) -> None:
            with place.client() as client:
                client.call(f"delete_{self.noun}", document)
            print_facts({"deleted": document}, as_json=as_json)

        return {"list": list_, "save": save, "show": show, "delete": delete}


def _cohort_size(client: Client, name: str) -> dict[str, Any]:
    return {"people": client.table("cohort_size", cohort=name).rows[0][0]}


COHORTS = Documents(
    noun="cohort",
    content="definition",
    about="Save people by what they did, list, show and delete such cohorts.",
    help={
        "list": "The saved cohorts, by name.",
        "save": "Save a cohort; a name that is there gets a new version. "
        "docs/reports/cohorts.md has the form of a definition.",
        "show": "One cohort, and how many people are in it now. `cohort-people` lists them.",
        "delete": "Delete a cohort. Reports as of an earlier time still know it.",
    },
    name_help="The cohort's name.",
    content_help="""JSON, such as '{"did": "Order", "within": "30d"}'; @FILE or - reads it.""",
    content_of=lambda body: body["definition"],
    more=_cohort_size,
)


DATASETS = Documents(
    noun="dataset",
    content="mapping",
    about="Map events to the tables of Analytics Engine's SQL; list, show and delete such mappings.",
    help={
        "list": "The saved mappings, by name.",
        "save": "Save a mapping; a name that is there gets a new version. "
        "docs/compatibility/analytics-engine.md has its form.",
        "show": "One mapping.",
        "delete": "Delete a mapping. Answers as of an earlier time still know it.",
    },
    name_help="The table's name.",
    content_help="""JSON, such as '{"event": "Order", "blobs": ["plan"]}'; @FILE or - reads it.""",
    content_of=lambda body: body,
)
