"""Schema: what a verb or report takes, as JSON has it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, datetime, timedelta
from typing import Annotated, Any

import msgspec

from lakebed.interface.signature import Signature, each

__all__ = ["body_of"]

_AS_TEXT = {datetime, date, timedelta}  # what JSON has no kind for


def body_of(signature: Signature) -> type[msgspec.Struct]:
    """A struct with a field for each parameter, for msgspec to make a schema of; each says what it is about."""
    fields: list[Any] = []
    for parameter, annotation in signature.types.items():
        meta = msgspec.Meta(description=signature.about.get(parameter) or parameter)
        kind: Any = Annotated.__class_getitem__((_json_type(annotation), meta))  # type: ignore[attr-defined]
        default = (signature.defaults[parameter],) if parameter in signature.defaults else ()
        fields.append((parameter, kind, *default))
    fields.sort(key=len)
    title = "".join(word.capitalize() for word in signature.name.split("_"))
    return msgspec.defstruct(f"{title}Body", fields)


def _json_type(annotation: Any) -> Any:
    """What JSON has for the type of an argument."""
    kinds = {_json_kind(kind) for kind in each(annotation)}
    if Any in kinds:
        return Any
    found: Any = None
    for kind in sorted(kinds, key=repr):
        found = kind if found is None else found | kind
    return found | None if type(None) in getattr(annotation, "__args__", ()) else found


def _json_kind(kind: Any) -> Any:
    if kind in _AS_TEXT:
        return str
    owner = getattr(kind, "__origin__", None)
    if isinstance(owner, type) and issubclass(owner, Mapping):
        return dict[str, Any]
    if isinstance(owner, type) and issubclass(owner, Sequence):
        return list.__class_getitem__(_json_type(kind.__args__[0]))
    return kind
