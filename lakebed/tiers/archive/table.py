"""The archive's Iceberg table: how it is loaded, created and evolved, and how a commit happens exactly once."""

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
from lakebed.sql_engine import SqlEngine
from lakebed.tiers.archive.data_files import ManifestCache
from lakebed.tiers.archive.file_io import local_path, open_catalog, open_external, unavailable
from lakebed.tiers.archive.pyiceberg_internals import run_inline, schema_from_arrow
from lakebed.tiers.archive.watermark import BATCH, Progress

__all__ = ["EventsTable"]

_ATTEMPTS = 20
_FORMAT = "lakebed.format-version"
FORMAT_VERSION = 1
_RETRIES = "commit.retry.num-retries"
_PROPERTIES = {
    "format-version": "2",
    _FORMAT: str(FORMAT_VERSION),
    # A retry inside pyiceberg would commit a batch again without checking the watermark.
    _RETRIES: "0",
    "commit.manifest-merge.enabled": "true",
    "commit.manifest.min-count-to-merge": "20",
    "write.metadata.delete-after-commit.enabled": "true",
    "write.metadata.previous-versions-max": "20",
    "write.delete.isolation-level": "snapshot",
    "write.parquet.compression-codec": "zstd",
    # Bounds of these columns, for pruning; counts of the other columns show whether a file has the column.
    "write.metadata.metrics.default": "counts",
    "write.metadata.metrics.column.seq": "full",
    "write.metadata.metrics.column.timestamp": "full",
    "write.metadata.metrics.column.received_at": "full",
    "write.metadata.metrics.column.event": "truncate(32)",
    "write.metadata.metrics.column.user_id": "truncate(16)",
}
_MOVE_BACK = "Move the directory back to the path at which it was created: Iceberg names files by absolute paths"
_SEQ, _TIMESTAMP = (SCHEMA.get_field_index(name) + 1 for name in ("seq", "timestamp"))
_SPEC = PartitionSpec(PartitionField(_TIMESTAMP, 1000, DayTransform(), "timestamp_day"))
_ORDER = SortOrder(SortField(_TIMESTAMP, IdentityTransform()), SortField(_SEQ, IdentityTransform()))


class EventsTable:
    """One object's Iceberg table. Every method blocks, and runs on the thread that created the table: the archive's.

    Attributes:
        engine: computes promoted columns.
        manifests: a cache of the manifests read so far.

    Raises, from every method:
        ArchiveUnavailable: the catalog or the warehouse did not answer, or the outcome of a commit is unknown.
        ArchiveConflict: another program has changed the table.
        FormatTooNew: a newer Lakebed wrote the table.
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
        engine: SqlEngine,
    ) -> None:
        run_inline()
        self.settings = settings
        self.clock = clock
        self.disk = disk
        self.promotions = tuple(promotions)
        self.engine = engine
        self.manifests = ManifestCache()
        self._directory = directory
        self._name = name
        self._catalog: Catalog | None = None

    @property
    def catalog(self) -> Catalog:
        """The catalog, opened at the first use."""
        if self._catalog is None:
            try:
                self._catalog = (
                    open_external(self.settings, self.disk)
                    if self.settings.catalog
                    else open_catalog(self._directory / "catalog.db", str(self._directory / "warehouse"), self.disk)
                )
            except Exception as error:
                raise unavailable("the archive's catalog cannot be opened", error) from error
        return self._catalog

    @property
    def identifier(self) -> tuple[str, ...]:
        """Namespace and name of the table in its catalog."""
        table = self._name if self.settings.catalog else "events"
        return (*self.settings.namespace.split("."), table)

    def close(self) -> None:
        """Close the catalog's connections and the engine."""
        try:
            if self._catalog is not None:
                self._catalog.close()
                self._catalog = None
        finally:
            self.engine.close()

    def load(self) -> Table | None:
        """The table as it is in the catalog now. Returns None, and creates no catalog, if nothing was archived yet."""
        if self._catalog is None and not self.settings.catalog and not (self._directory / "catalog.db").exists():
            return None
        catalog = self.catalog
        try:
            table = catalog.load_table(self.identifier)
        except (NoSuchTableError, NoSuchNamespaceError):
            return None
        except FileNotFoundError as error:
            raise ArchiveUnavailable(
                f"the archive's table cannot be read: {error}",
                hint=f"Restore this file from a backup. If the directory was moved: {_MOVE_BACK}",
            ) from error
        except Exception as error:
            raise unavailable("the archive's table cannot be read", error) from error
        _verify(table)
        self._verify_location(table)
        return table

    def _verify_location(self, table: Table) -> None:
        """Raise ArchiveConflict if this object is a copy: it would delete the original's files as garbage."""
        expected = self._location()
        actual = self.directory(table)
        if self.settings.warehouse or expected is None or actual is None:
            return
        location = Path(expected)
        layout = location.relative_to(self._directory.parent.resolve()).parts
        if actual.parts[-len(layout) :] == layout and actual.resolve() != location.resolve():
            raise ArchiveConflict(
                f"the archive was created at {actual}, not at {location}: its files belong to another object",
                hint=f"A copy of an object cannot be opened beside it. {_MOVE_BACK}",
                path=actual,
            )

    def load_or_create(self) -> Table:
        """The table. Creates the table, with this object's promotions, if it does not exist."""
        table = self.load()
        if table is not None:
            return table
        try:
            self._create()
        except TableAlreadyExistsError:
            pass  # another archiver has created the table, which is verified below
        except LakebedError:
            raise
        except Exception as error:
            raise unavailable("the archive's table cannot be created", error) from error
        table = self.load()
        if table is None:
            raise ArchiveUnavailable(
                "the archive's table was created, but the catalog does not have it", hint="Check the catalog"
            )
        return table

    def _create(self) -> None:
        promoted = (
            pa.field(promotion.name, promotion.arrow_type, metadata={b"PARQUET:field_id": str(number).encode()})
            for number, promotion in enumerate(self.promotions, len(SCHEMA) + 1)
        )
        schema = schema_from_arrow(pa.schema([*SCHEMA, *promoted]))
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
        """The table's location, or None if the catalog decides. Raises InvalidName for a path outside the directory."""
        *namespace, table = self.identifier
        if self.settings.catalog:
            return None
        if self.settings.warehouse:
            return "/".join([self.settings.warehouse.rstrip("/"), *namespace, self._name])
        root = (self._directory / "warehouse").resolve()
        location = root.joinpath(*namespace, table)
        if not root.is_relative_to(self._directory.resolve()) or not location.resolve().is_relative_to(root):
            raise InvalidName(
                f"{location} is outside {root}", hint="Use letters, digits, - and _ in the namespace", path=location
            )
        return str(location)

    def evolve(self, transaction: Transaction) -> Schema:
        """Stage a column for each of this object's promotions that the table lacks, in order; returns the new schema.

        Raises:
            PromotionConflict: a column has another type (types never change), or a name that differs only in case.
        """
        schema: Schema = transaction.table_metadata.schema()
        missing = []
        for promotion in self.promotions:
            kind = _iceberg_type(promotion)
            field = next((field for field in schema.fields if field.name == promotion.name), None)
            if field is None:
                self._check_distinct(promotion.name, schema)
                missing.append((promotion.name, kind))
            elif field.field_type != kind:
                raise PromotionConflict(
                    f"{promotion.name} is a column of type {field.field_type} in the archive, not {kind}",
                    hint="The type of a column cannot change: promote the property with its old type",
                    name=promotion.name,
                )
        if missing:
            with transaction.update_schema() as update:
                for name, kind in missing:
                    update.add_column((name,), kind)
        return transaction.table_metadata.schema()

    def _check_distinct(self, name: str, schema: Schema) -> None:
        similar = [field.name for field in schema.fields if field.name.lower() == name.lower()]
        if similar:
            raise PromotionConflict(
                f"{name} and the archive's {similar[0]} differ only in case", hint="Promote that name: SQL ignores case"
            )

    def commit(self, stage: Callable[[Table], tuple[Transaction, Progress] | None], *, create: bool = False) -> bool:
        """Compare and swap: load the table, call `stage`, commit. Repeat if another program committed first.

        Args:
            stage: called with the current table; returns the transaction to commit and its progress, or None if there
                is nothing to do. `stage` may be called up to 20 times, and has to check the watermark each time.
            create: create the table if it does not exist.

        Returns:
            Whether there was a commit. If there was, the catalog was read after the commit, and has the commit.
        """
        tried: list[str] = []
        for _ in range(_ATTEMPTS):
            table = self.load_or_create() if create else self.load()
            if table is None:
                return False
            if any(_has_commit(table, batch_id) for batch_id in tried):
                return True  # the catalog reported a conflict, but has the commit
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
            except Exception as error:  # noqa: BLE001 - after any error, the commit may have been applied
                self._settle(progress, error)
            self._confirm(progress)
            return True
        raise ArchiveConflict(
            f"other programs changed the archive {_ATTEMPTS} times in a row",
            hint="Let only one object archive into this table",
        )

    def _settle(self, progress: Progress, error: Exception) -> None:
        """Raise unless the table has the commit. Called after an error that may precede or follow the commit."""
        table = self.load()
        if table is None or not _has_commit(table, progress.batch_id):
            raise unavailable("the archive did not accept a commit", error) from error

    def _confirm(self, progress: Progress) -> None:
        table = self.load()
        if table is None or not _has_commit(table, progress.batch_id):
            raise ArchiveUnavailable(
                "the archive's catalog confirmed a commit, but the commit is missing",
                hint="Check the catalog, then archive again. No event was lost",
                batch_id=progress.batch_id,
            )

    def amend(self, stage: Callable[[Table], Transaction | None]) -> bool:
        """Like `commit`, but for changes that add no snapshot (expiry, tags). These changes must be idempotent."""
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
                if isinstance(error, ValueError) and self._has_changed(table):
                    continue  # another program has removed a snapshot that this change names
                raise unavailable("the archive did not accept a change, or the response was lost", error) from error
            return True
        raise ArchiveConflict(
            f"other programs changed the archive {_ATTEMPTS} times in a row",
            hint="Let only one object archive into this table",
        )

    def _has_changed(self, table: Table | None) -> bool:
        newest = self.load()
        return newest is not None and table is not None and newest.metadata_location != table.metadata_location

    def directory(self, table: Table) -> Path | None:
        """The table's directory; None if the warehouse is not local."""
        return local_path(table.location())


def _has_commit(table: Table, batch_id: str) -> bool:
    """Whether a snapshot of the table has the batch id `batch_id`."""
    return any(
        snapshot.summary is not None and snapshot.summary.additional_properties.get(BATCH) == batch_id
        for snapshot in table.metadata.snapshots
    )


def _verify(table: Table) -> None:
    properties = table.metadata.properties
    if int(properties.get(_FORMAT, FORMAT_VERSION)) > FORMAT_VERSION:
        raise FormatTooNew(
            f"the archive has format {properties[_FORMAT]}, this Lakebed reads {FORMAT_VERSION}", hint="Upgrade Lakebed"
        )
    if properties.get(_RETRIES) != "0":
        raise ArchiveConflict(
            f"the archive's table has {_RETRIES} = {properties.get(_RETRIES)}: pyiceberg could commit a batch twice",
            hint=f"Set the table property {_RETRIES} to 0",
        )
    names = {field.field_id: field.name for field in table.schema().fields}
    if any(names.get(number) != name for number, name in enumerate(SCHEMA.names, 1)):
        raise ArchiveConflict(
            "the archive's table does not have the columns of events",
            hint="Another program created or changed this table: name another one in the settings",
        )


def _iceberg_type(promotion: Promotion) -> Any:
    field = pa.field(promotion.name, promotion.arrow_type, metadata={b"PARQUET:field_id": b"1"})
    return schema_from_arrow(pa.schema([field])).fields[0].field_type
