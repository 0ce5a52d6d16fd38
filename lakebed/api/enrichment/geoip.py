"""Places: where an address lies, by a MaxMind file that the operator supplies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import maxminddb

from lakebed.api.enrichment.client_ip import Address
from lakebed.errors import InvalidSettings

__all__ = ["Places"]


class Places:
    """A `.mmdb` file of cities or countries (GeoLite2, GeoIP2, DB-IP).

    Raises:
        InvalidSettings: the file is not there, or is none.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._reader = maxminddb.open_database(path, maxminddb.MODE_AUTO)
        except (OSError, maxminddb.InvalidDatabaseError) as error:
            raise InvalidSettings(f"{path} cannot be read as a MaxMind file: {error}", path=path) from None

    def of(self, address: Address) -> dict[str, Any] | None:
        """Segment's `location`: those of city, region, country (its ISO code), latitude, longitude that are known."""
        try:
            found: Any = self._reader.get(address)
        except (ValueError, maxminddb.InvalidDatabaseError):  # IPv6 in a file of IPv4; a damaged record
            return None
        if not isinstance(found, dict):
            return None
        regions = found.get("subdivisions")
        country = found.get("country")
        place = found.get("location")
        place = place if isinstance(place, dict) else {}
        said = {
            "city": _english(found.get("city")),
            "region": _english(regions[0]) if isinstance(regions, list) and regions else None,
            "country": country.get("iso_code") if isinstance(country, dict) else None,
            "latitude": place.get("latitude"),
            "longitude": place.get("longitude"),
        }
        return {name: value for name, value in said.items() if isinstance(value, (str, float, int))} or None

    def close(self) -> None:
        """Let the file go."""
        self._reader.close()


def _english(named: Any) -> Any:
    names = named.get("names") if isinstance(named, dict) else None
    return names.get("en") if isinstance(names, dict) else None
