"""Makes the JSON Schema of the arguments of a verb or report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, datetime, timedelta
from typing import Annotated, Any

import msgspec

from lakebed.interface.signature import Signature, each, pascal

__all__ = ["body_of"]

_AS_TEXT = {datetime, date, timedelta}  # types that JSON lacks


def body_of(signature: Signature) -> type[msgspec.Struct]:
    """Make a struct class with a described field for each parameter. msgspec makes the schema from the class."""
    fields: list[Any] = []
    for parameter, annotation in signature.types.items():
        meta = msgspec.Meta(description=signature.about.get(parameter) or parameter)
        kind: Any = Annotated.__class_getitem__((_json_type(annotation), meta))  # type: ignore[attr-defined]
        default = (signature.defaults[parameter],) if parameter in signature.defaults else ()
        fields.append((parameter, kind, *default))
    fields.sort(key=len)  # fields without a default come first
    return msgspec.defstruct(f"{pascal(signature.name)}Body", fields)


def _json_type(annotation: Any) -> Any:
    """The annotation of an argument, with types that JSON lacks replaced by JSON's types."""
    kinds = {_json_kind(kind) for kind in each(annotation)}
    if Any in kinds:
        return Any
    union: Any = None
    for kind in sorted(kinds, key=repr):
        union = kind if union is None else union | kind
    return union | None if type(None) in getattr(annotation, "__args__", ()) else union


def _json_kind(kind: Any) -> Any:
    if kind in _AS_TEXT:
        return str
    origin = getattr(kind, "__origin__", None)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return dict[str, Any]
    if isinstance(origin, type) and issubclass(origin, Sequence):
        return list.__class_getitem__(_json_type(kind.__args__[0]))
    return kind
