"""What benchmarks on a caller's photos share."""

from pathlib import Path

from caap_lab import AttributionMap

ENDINGS = (".jpg", ".jpeg", ".png")


def every_nth(folder: Path, count: int) -> list[Path]:
    """Photos spread over a folder, by name."""
    found = sorted(path for path in folder.iterdir() if path.suffix.lower() in ENDINGS)
    return found[:: max(1, len(found) // count)][:count]


def one(found: AttributionMap | list[AttributionMap]) -> AttributionMap:
    """The map of a call with one image."""
    assert isinstance(found, AttributionMap)
    return found
