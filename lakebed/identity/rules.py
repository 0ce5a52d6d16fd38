"""The rules of matching: the values that link identities, their normalized forms, and the confidence of each link."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any

import msgspec

from lakebed.settings import Settings

__all__ = ["Rules", "device_signal", "is_blocked", "normal_email", "normal_phone"]

# Part of the fingerprint. After a change of the stored graph's content, a new number computes every graph again.
_VERSION = 1
_BLOCKED = re.compile(r"[0-]*|-1|null|anonymous")  # Segment's list of values that never identify a person
_EMAIL = re.compile(r"[^@\s]+@[^@\s]+")
_MAX_EMAIL = 254
_PHONE_DIGITS = range(7, 16)
# An exact device id is nearly proof. Of a browser's signals only all together reach the default threshold.
_DEVICE_ID = 0.95
_WEIGHTS = {"ip": 0.5, "userAgent": 0.25, "locale": 0.05, "timezone": 0.05, "screen": 0.05}


class Rules(msgspec.Struct, frozen=True):
    """The rules for values that link identities in one object, in addition to `identify` and `alias`.

    Attributes:
        email: whether equal emails link.
        phone: whether equal phone numbers link.
        devices: whether device signals link.
        device_confidence: minimum confidence with which a device links.
        user_limit: known users that emails and phone numbers may bring together in one person.
        anonymous_limit: anonymous ids that one person may own.
    """

    email: bool = False
    phone: bool = False
    devices: bool = False
    device_confidence: float = 0.9
    user_limit: int = 1
    anonymous_limit: int = 100

    @classmethod
    def of(cls, settings: Settings) -> Rules:
        """Read the rules of matching from settings."""
        return cls(
            email=settings.identity_email,
            phone=settings.identity_phone,
            devices=settings.identity_devices,
            device_confidence=settings.identity_device_confidence,
            user_limit=settings.identity_user_limit,
            anonymous_limit=settings.identity_anonymous_limit,
        )

    @property
    def fingerprint(self) -> str:
        """A hash of the rules. It changes if the same events may give another graph."""
        return hashlib.sha256(msgspec.json.encode([_VERSION, self])).hexdigest()


def is_blocked(value: str) -> bool:
    """Whether a value is a placeholder such as "null", which would link unrelated people."""
    return _BLOCKED.fullmatch(value) is not None


def normal_email(value: Any) -> str | None:
    """The address, trimmed, in lower case; None if invalid. Dots and tags are kept, as they distinguish mailboxes."""
    if not isinstance(value, str):
        return None
    text = value.strip().lower()
    return text if len(text) <= _MAX_EMAIL and _EMAIL.fullmatch(text) else None


def normal_phone(value: Any) -> str | None:
    """The digits of a phone number, without the `+` or `00` of an international one; None if it is no phone number.

    The country is not guessed: the national and the international spelling of a number stay different.
    """
    if not isinstance(value, (str, int)) or isinstance(value, bool):
        return None
    digits = "".join(char for char in str(value) if char in "0123456789").removeprefix("00")
    return digits if len(digits) in _PHONE_DIGITS and digits.strip("0") else None


def device_signal(context: Any) -> tuple[str, float] | None:
    """A digest of the device signals in a context, and the confidence that equal digests mean one person."""
    if not isinstance(context, Mapping):
        return None
    device = context.get("device")
    if isinstance(device, Mapping):
        for key in ("id", "advertisingId"):
            value = device.get(key)
            tracked = key == "id" or device.get("adTrackingEnabled") is not False
            if isinstance(value, str) and not is_blocked(value) and tracked:
                return _signal(key, device.get("type"), value), _DEVICE_ID
    signals = {name: context[name] for name in _WEIGHTS if context.get(name)}
    if "ip" not in signals or "userAgent" not in signals:
        return None
    return _signal(*signals.items()), round(sum(_WEIGHTS[name] for name in signals), 2)


def _signal(*parts: Any) -> str:
    """The digest of signals. It is stored in their place, as only equality matters."""
    return hashlib.sha256(msgspec.json.encode(parts, order="deterministic")).hexdigest()
