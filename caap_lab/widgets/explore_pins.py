"""Maps that stay beside those that follow the controls."""

from collections.abc import Sequence
from dataclasses import replace

from caap_lab.widgets.explore_shown import Rows, Shown

_KEY = "pin "


class Pins:
    """The pinned maps.

    A map that is pinned keeps its tile as long as the controls show the same in it; once they do not, it moves to a
    tile of its own.

    Attributes:
        shown: Pinned maps with a tile of their own, in the order in which they were pinned.
    """

    def __init__(self) -> None:
        self.shown: list[Shown] = []
        self._live: dict[str, Shown] = {}
        self._made = 0

    @property
    def keys(self) -> list[str]:
        """Of the tiles that are pinned."""
        return [*(shown.key for shown in self.shown), *self._live]

    def take(self, keys: Sequence[str], rows: Rows) -> bool:
        """Pin and unpin until these are the pinned tiles.

        Args:
            keys: Of tiles.
            rows: Those that follow the controls.

        Returns:
            Whether other tiles are shown now.
        """
        before = len(self.shown)
        self.shown = [shown for shown in self.shown if shown.key in keys]
        live = {shown.key: shown for row in rows for shown in row if shown.m is not None}
        self._live = {key: self._live.get(key, live[key]) for key in keys if key in live}
        return len(self.shown) != before or set(keys) != set(self.keys)

    def follow(self, rows: Rows) -> None:
        """Give tiles of their own to pinned maps that these rows do not show any more."""
        live = {shown.key: shown for row in rows for shown in row}
        for key, pinned in list(self._live.items()):
            now = live.get(key)
            if now is None or (now.place, now.caption) != (pinned.place, pinned.caption):
                del self._live[key]
                self._made += 1
                caption = f"{pinned.caption}, {pinned.photo.name}"
                self.shown.append(replace(pinned, key=f"{_KEY}{self._made}", caption=caption))
