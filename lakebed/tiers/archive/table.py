"""The Iceberg table under the archive: loading, creating, evolving, and committing exactly once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyiceberg.catalog import Catalog
from pyiceberg.exceptions import (
    CommitFailedException,
    NoSuchNamespaceError,
    NoSuchTableError,
    TableAlreadyExistsError,
    ValidationException,
)
from pyiceberg.io.pyarrow import pyarrow_to_schema
from pyiceberg.partitioning import PartitionField, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.table import Table, Transaction
from pyiceberg.table.sorting import SortField, SortOrder
from pyiceberg.transforms import DayTransform, IdentityTransform

from lakebed.clock import Clock
from lakebed.disk import Disk
from lakebed.errors import (
    ArchiveConflict,
    ArchiveUnavailable,
    FormatTooNew,
    InvalidName,
    LakebedError,
    PromotionConflict,
)
from lakebed.events.event import SCHEMA
from lakebed.events.promotions import Promotion
from lakebed.settings import Settings
from lakebed.tiers.archive.catalog import open_catalog, open_external
from lakebed.tiers.archive.file_io import local_path, unavailable
from lakebed.tiers.archive.watermark import BATCH, Progress

__all__ = ["FORMAT_VERSION", "EventsTable", "holds"]

_ATTEMPTS = 20
_FORMAT = "lakebed.format-version"
FORMAT_VERSION = 1
_RETRIES = "commit.retry.num-retries"
_PROPERTIES = {
    "format-version": "2",
    _FORMAT: str(FORMAT_VERSION),
    # A retry inside pyiceberg would commit a batch again without looking at the watermark.
    _RETRIES: "0",
    "commit.manifest-merge.enabled": "true",
    "commit.manifest.min-count-to-merge": "20",
    "write.metadata.delete-after-commit.enabled": "true",
    "write.metadata.previous-versions-max": "20",
    "write.delete.isolation-level": "snapshot",
    "write.parquet.compression-codec": "zstd",
    # Bounds that prune; counts for the rest say which columns a file has.
    "write.metadata.metrics.default": "counts",
    "write.metadata.metrics.column.seq": "full",
    "write.metadata.metrics.column.timestamp": "full",
    "write.metadata.metrics.column.received_at": "full",
    "write.metadata.metrics.column.event": "truncate(32)",
    "write.metadata.metrics.column.user_id": "truncate(16)",
}
_BACK = "Put the object's directory where it was made, and the other one away: Iceberg names files by absolute paths"
_SEQ, _TIMESTAMP = (SCHEMA.get_field_index(name) + 1 for name in ("seq", "timestamp"))
_SPEC = PartitionSpec(PartitionField(_TIMESTAMP, 1000, DayTransform(), "timestamp_day"))
_ORDER = SortOrder(SortField(_TIMESTAMP, IdentityTransform()), SortField(_SEQ, IdentityTransform()))


class EventsTable:
    """One object's Iceberg table. Every method blocks, and belongs on the archive's thread.

    Raises, whatever is called:
        ArchiveUnavailable: when the catalog or the warehouse did not answer, or its answer is not known.
        ArchiveConflict: when the table is not as this object left it.
        FormatTooNew: when a newer Lakebed wrote it.
    """

    def __init__(
        self,
        *,
        directory: Path,
        name: str,
        settings: Settings,
        clock: Clock,
        disk: Disk,
        promotions: Sequence[Promotion],
    ) -> None:
        self.settings = settings
        self.clock = clock
        self.disk = disk
        self.promotions = tuple(promotions)
        self._directory = directory
        self._name = name
        self._opened: Catalog | None = None

    @property
    def catalog(self) -> Catalog:
        """The catalog, opened by the first use."""
        if self._opened is None:
            try:
                self._opened = (
                    open_external(self.settings, self.disk)
                    if self.settings.catalog
                    else open_catalog(self._directory / "catalog.db", str(self._directory / "warehouse"), self.disk)
                )
            except Exception as error:
                raise unavailable("the archive's catalog cannot be opened", error) from error
        return self._opened

    @property
    def identifier(self) -> tuple[str, ...]:
        """Namespace and name of the table in its catalog."""
        table = self._name if self.settings.catalog else "events"
        return (*self.settings.namespace.split("."), table)

    def close(self) -> None:
        """Close the catalog's connections."""
        if self._opened is not None:
            self._opened.close()
            self._opened = None

    def load(self) -> Table | None:
        """The table as the catalog has it now; None where nothing was archived yet (and no catalog is made)."""
        if self._opened is None and not self.settings.catalog and not (self._directory / "catalog.db").exists():
            return None
        catalog = self.catalog
        try:
            table = catalog.load_table(self.identifier)
        except (NoSuchTableError, NoSuchNamespaceError):
            return None
        except FileNotFoundError as error:
            raise ArchiveUnavailable(
                f"the archive's table cannot be read: {error}",
                hint=f"Restore this file from a backup. Was the directory moved? {_BACK}",
            ) from error
        except Exception as error:
            raise unavailable("the archive's table cannot be read", error) from error
        _verify(table)
        self._verify_place(table)
        return table

    def _verify_place(self, table: Table) -> None:
        """A copy must not work on the files of the object that it was copied from: it would collect them as garbage."""
        location = self._location()
        found = self.directory(table)
        if self.settings.warehouse or location is None or found is None:
            return
        ours = Path(location)
        layout = ours.relative_to(self._directory.parent.resolve()).parts
        if found.parts[-len(layout) :] == layout and found.resolve() != ours.resolve():
            raise ArchiveConflict(
                f"the archive was made at {found}, not at {ours}: these are the files of another object",
                hint=f"Is this a copy? {_BACK}",
                path=found,
            )

    def load_or_create(self) -> Table:
        """The table, created with this object's promotions if need be."""
        table = self.load()
        if table is not None:
            return table
        try:
            self._create()
        except TableAlreadyExistsError:
            pass  # another archiver was faster; what it made is verified like any other
        except LakebedError:
            raise
        except Exception as error:
            raise unavailable("the archive's table cannot be created", error) from error
        table = self.load()
        if table is None:
            raise ArchiveUnavailable("the archive's table was created, and is not there", hint="Look at the catalog")
        return table

    def _create(self) -> None:
        promoted = (
            pa.field(promotion.name, promotion.arrow_type, metadata={b"PARQUET:field_id": str(number).encode()})
            for number, promotion in enumerate(self.promotions, len(SCHEMA) + 1)
        )
        schema = pyarrow_to_schema(pa.schema([*SCHEMA, *promoted]))
        self.catalog.create_namespace_if_not_exists(self.identifier[:-1])
        self.catalog.create_table(
            self.identifier,
            schema,
            location=self._location(),
            partition_spec=_SPEC,
            sort_order=_ORDER,
            properties=_PROPERTIES,
        )

    def _location(self) -> str | None:
        """Where the files go. An external catalog decides for itself; a path must not lead out of the object."""
        *namespace, table = self.identifier
        if self.settings.catalog:
            return None
        if self.settings.warehouse:
            return "/".join([self.settings.warehouse.rstrip("/"), *namespace, self._name])
        root = (self._directory / "warehouse").resolve()
        location = root.joinpath(*namespace, table)
        if not root.is_relative_to(self._directory.resolve()) or not location.resolve().is_relative_to(root):
            raise InvalidName(
                f"{location} leads out of {root}", hint="Use letters, digits, - and _ in the namespace", path=location
            )
        return str(location)

    def evolve(self, transaction: Transaction) -> Schema:
        """Stage the columns that the table lacks of our promotions, in order, and return the schema that comes of it.

        Raises:
            PromotionConflict: when a column has another type. Types never change.
        """
        schema: Schema = transaction.table_metadata.schema()
        missing = []
        for promotion in self.promotions:
            kind = _iceberg_type(promotion)
            field = next((field for field in schema.fields if field.name == promotion.name), None)
            if field is None:
                self._distinct(promotion.name, schema)
                missing.append((promotion.name, kind))
            elif field.field_type != kind:
                raise PromotionConflict(
                    f"{promotion.name} is a column of type {field.field_type} in the archive, not {kind}",
                    hint="A column keeps its type for ever: promote the property under the old type",
                    name=promotion.name,
                )
        if missing:
            with transaction.update_schema() as update:
                for name, kind in missing:
                    update.add_column((name,), kind)
        return transaction.table_metadata.schema()

    def _distinct(self, name: str, schema: Schema) -> None:
        twins = [field.name for field in schema.fields if field.name.lower() == name.lower()]
        if twins:
            raise PromotionConflict(
                f"{name} and the archive's column {twins[0]} differ only in case", hint="SQL cannot tell them apart"
            )

    def commit(self, stage: Callable[[Table], tuple[Transaction, Progress] | None], *, create: bool = False) -> bool:
        """Compare and swap: load the table, let `stage` decide on it, commit; again when someone else was faster.

        Args:
            stage: called with the table as it is now; gives what to commit, or None when there is nothing to do. It may
                be called many times: each time it sees the watermark anew.
            create: make the table if there is none.

        Returns:
            Whether something was committed. It is in the catalog then: it was read back.
        """
        tried: list[str] = []
        for _ in range(_ATTEMPTS):
            table = self.load_or_create() if create else self.load()
            if table is None:
                return False
            if any(holds(table, batch_id) for batch_id in tried):
                return True  # refused, they said, but it is there
            try:
                staged = stage(table)
            except OSError as error:
                raise unavailable("the archive's files cannot be written", error) from error
            if staged is None:
                return False
            transaction, progress = staged
            tried.append(progress.batch_id)
            try:
                transaction.commit_transaction()
            except (CommitFailedException, ValidationException):
                continue
            except Exception as error:  # noqa: BLE001 - whatever it was, the commit may have been applied
                self._settle(progress, error)
            self._confirm(progress)
            return True
        raise ArchiveConflict(
            f"others changed the archive {_ATTEMPTS} times in a row", hint="Is there a second archiver?"
        )

    def _settle(self, progress: Progress, error: Exception) -> None:
        """After an error that may have come before or after the commit: find out which."""
        table = self.load()
        if table is None or not holds(table, progress.batch_id):
            raise unavailable("the archive did not take a commit", error) from error

    def _confirm(self, progress: Progress) -> None:
        table = self.load()
        if table is None or not holds(table, progress.batch_id):
            raise ArchiveUnavailable(
                "the archive's catalog does not show the commit that it has confirmed",
                hint="The log keeps the events; run it again, and look at the catalog",
                batch_id=progress.batch_id,
            )

    def amend(self, stage: Callable[[Table], Transaction | None]) -> bool:
        """Like `commit`, for changes without a snapshot (expiry, tags): doing them twice does no harm."""
        for _ in range(_ATTEMPTS):
            table = self.load()
            transaction = None if table is None else stage(table)
            if transaction is None:
                return False
            try:
                transaction.commit_transaction()
            except (CommitFailedException, ValidationException):
                continue
            except Exception as error:
                if isinstance(error, ValueError) and self._moved_on(table):
                    continue  # it names a snapshot that another archiver has removed meanwhile
                raise unavailable("the archive did not take a change, or its answer was lost", error) from error
            return True
        raise ArchiveConflict(
            f"others changed the archive {_ATTEMPTS} times in a row", hint="Is there a second archiver?"
        )

    def _moved_on(self, table: Table | None) -> bool:
        newest = self.load()
        return newest is not None and table is not None and newest.metadata_location != table.metadata_location

    def directory(self, table: Table) -> Path | None:
        """The table's directory, where its warehouse is local."""
        return local_path(table.location())


def holds(table: Table, batch_id: str) -> bool:
    """Whether a commit is in the table's history."""
    return any(
        snapshot.summary is not None and snapshot.summary.additional_properties.get(BATCH) == batch_id
        for snapshot in table.metadata.snapshots
    )


def _verify(table: Table) -> None:
    properties = table.metadata.properties
    if int(properties.get(_FORMAT, FORMAT_VERSION)) > FORMAT_VERSION:
        raise FormatTooNew(
            f"the archive has format {properties[_FORMAT]}, this Lakebed reads {FORMAT_VERSION}",
            hint="Upgrade Lakebed",
        )
    if properties.get(_RETRIES) != "0":
        raise ArchiveConflict(
            f"the archive's table has {_RETRIES} = {properties.get(_RETRIES)}: pyiceberg could commit a batch twice",
            hint=f"Set the table property {_RETRIES} to 0",
        )
    names = {field.field_id: field.name for field in table.schema().fields}
    if any(names.get(number) != name for number, name in enumerate(SCHEMA.names, 1)):
        raise ArchiveConflict("the archive's table does not have our columns", hint="Is this table another program's?")


def _iceberg_type(promotion: Promotion) -> Any:
    field = pa.field(promotion.name, promotion.arrow_type, metadata={b"PARQUET:field_id": b"1"})
    return pyarrow_to_schema(pa.schema([field])).fields[0].field_type
