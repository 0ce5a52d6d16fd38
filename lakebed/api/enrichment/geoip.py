"""GeoIp: the location of an address, by a MaxMind file that the operator supplies. Needs the extra `enrichment`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lakebed.api.enrichment.client_ip import Address
from lakebed.errors import InvalidSettings

__all__ = ["GeoIp"]


class GeoIp:
    """A `.mmdb` file of cities or countries (GeoLite2, GeoIP2, DB-IP).

    Raises:
        InvalidSettings: the file is missing or is not a MaxMind file, or the extra is not installed.
    """

    def __init__(self, path: Path) -> None:
        try:
            import maxminddb
        except ImportError:
            hint = "pip install 'lakebed[enrichment]'"
            raise InvalidSettings("locations of addresses need the package maxminddb", hint=hint, path=path) from None
        self._invalid = maxminddb.InvalidDatabaseError
        try:
            self._reader = maxminddb.open_database(path, maxminddb.MODE_AUTO)
        except (OSError, maxminddb.InvalidDatabaseError) as error:
            raise InvalidSettings(f"{path} cannot be read as a MaxMind file: {error}", path=path) from None

    def of(self, address: Address) -> dict[str, Any] | None:
        """Segment's `location`: city, region, country (its ISO code), latitude and longitude, as far as known."""
        try:
            record: Any = self._reader.get(address)
        except (ValueError, self._invalid):  # IPv6 in a file of IPv4; a damaged record
            return None
        if not isinstance(record, dict):
            return None
        regions = record.get("subdivisions")
        country = record.get("country")
        place = record.get("location")
        place = place if isinstance(place, dict) else {}
        location = {
            "city": _english(record.get("city")),
            "region": _english(regions[0]) if isinstance(regions, list) and regions else None,
            "country": country.get("iso_code") if isinstance(country, dict) else None,
            "latitude": place.get("latitude"),
            "longitude": place.get("longitude"),
        }
        return {name: value for name, value in location.items() if isinstance(value, (str, float, int))} or None

    def close(self) -> None:
        """Close the file."""
        self._reader.close()


def _english(record: Any) -> Any:
    names = record.get("names") if isinstance(record, dict) else None
    return names.get("en") if isinstance(names, dict) else None
