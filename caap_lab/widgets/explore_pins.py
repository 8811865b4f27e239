"""Pinned maps, which stay when the controls change."""

from collections.abc import Sequence
from dataclasses import replace

from caap_lab.widgets.explore_shown import Rows, Shown

_KEY = "pin "


class Pins:
    """The pinned maps.

    A pinned map keeps its tile as long as the controls still produce it; then it moves to a separate tile.

    Attributes:
        shown: Pinned maps in separate tiles, in the order in which they were pinned.
    """

    def __init__(self) -> None:
        self.shown: list[Shown] = []
        self._live: dict[str, Shown] = {}
        self._made = 0

    @property
    def keys(self) -> list[str]:
        """Keys of the tiles that are pinned."""
        return [*(shown.key for shown in self.shown), *self._live]

    def take(self, keys: Sequence[str], rows: Rows) -> bool:
        """Pin and unpin maps until these are the pinned tiles.

        Args:
            keys: Keys of tiles.
            rows: The rows that follow the controls.

        Returns:
            True if the tiles shown have changed.
        """
        before = len(self.shown)
        self.shown = [shown for shown in self.shown if shown.key in keys]
        live = {shown.key: shown for row in rows for shown in row if shown.m is not None}
        self._live = {key: self._live.get(key, live[key]) for key in keys if key in live}
        return len(self.shown) != before or set(keys) != set(self.keys)

    def follow(self, rows: Rows) -> None:
        """Add separate tiles for pinned maps that these rows no longer show."""
        live = {shown.key: shown for row in rows for shown in row}
        for key, pinned in list(self._live.items()):
            now = live.get(key)
            if now is None or (now.place, now.caption) != (pinned.place, pinned.caption):
                del self._live[key]
                self._made += 1
                caption = f"{pinned.caption}, {pinned.photo.name}"
                self.shown.append(replace(pinned, key=f"{_KEY}{self._made}", caption=caption))
