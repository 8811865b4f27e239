"""Attention widget: click a patch to see where every head of every layer looks from there."""

from functools import partial
from typing import Any

import ipywidgets
import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor

from caap_lab.checks import check_share
from caap_lab.data.image_set import ImageSet
from caap_lab.diagnostics.attention_regions import attention_regions
from caap_lab.diagnostics.region_result import AttentionRegions
from caap_lab.errors import InputError
from caap_lab.models.base import Images, check_kind
from caap_lab.models.regions import Masks
from caap_lab.models.running import check_eval
from caap_lab.models.vit import HookedViT
from caap_lab.plots.maps import colour_table
from caap_lab.widgets.attention_calls import map_calls, region_calls, sum_calls
from caap_lab.widgets.attention_figure import AttentionScene, attention_figure
from caap_lab.widgets.attention_tiles import chosen_map, photo_with_objects
from caap_lab.widgets.attention_words import head_tips, prefix_names, token_words
from caap_lab.widgets.background import Job, cancellable_copy
from caap_lab.widgets.board import Board
from caap_lab.widgets.head_grid import HeadGrid, set_all
from caap_lab.widgets.head_maps import HeadMaps, with_means
from caap_lab.widgets.head_order import HeadOrder
from caap_lab.widgets.head_places import HeadPlaces
from caap_lab.widgets.head_table import DISTANCE, ENTROPY, as_grid, head_table
from caap_lab.widgets.objects import Objects
from caap_lab.widgets.panel import Panel, group
from caap_lab.widgets.photos import photos_of
from caap_lab.widgets.query_rows import QueryRows
from caap_lab.widgets.region_sums import RegionSums
from caap_lab.widgets.rows import beside

PATCH, POOL = -1, -2
"""Values of the query control that are not the number of a prefix token."""


def attention(model: HookedViT, image: Images, masks: Masks | None = None, *, overlap: float = 0.5) -> "AttentionView":
    """See where each head of each layer looks from a patch or prefix token, and how attention divides between regions.

    ```python
    cl.widgets.attention(model, "cat.jpg")
    ```

    Click a patch of the photo to make it the query, or choose a prefix token or the pooling head. The heads are shown
    in a grid with means over heads, over layers and over both, and can be sorted by entropy, distance or region mass.
    Objects are given by masks, or painted on the photo patch by patch; the sums over their regions are those of
    `cl.attention_regions`.

    Args:
        model: A Vision Transformer in evaluation mode.
        image: One image, or a demo scene, whose masks are used.
        masks: The image's objects: a bool mask [H, W] of the model's input (`model.preprocessing.mask` makes one) or of
            the size of the grid of patches, or a list or dict of them. They can be edited by painting.
        overlap: Smallest fraction of a patch that makes it part of an object, from 0 (any pixel) to 1.

    Returns:
        The widget. `weights` is the query's attention, `map` the chosen head's, `pool` that of a head that pools by
        attention (its row is below the layers), `regions` the sums between regions, `to_figure()` the current state
        as a figure, and `link` the Python calls that compute it.

    Raises:
        InputError: the model has no attention or is in training mode, there are several images, or masks do not fit.
    """
    return AttentionView(model, image, masks, overlap)


class AttentionView(Panel):
    """The widget of `attention`.

    Attributes:
        query: Number of the query token, prefix tokens first; `look` changes it.
        objects: The object of each patch.
        regions: Attention between the objects; None without objects and while it is computed.
    """

    def __init__(self, model: HookedViT, image: Images, masks: Masks | None, overlap: float) -> None:
        check_kind(model, "attention")
        check_eval(model)
        check_share("overlap", overlap)
        if isinstance(image, ImageSet):
            raise InputError("attention shows one image: pass one of the data set, images[0].image.")
        photos = photos_of(model, image)
        if len(photos) != 1:
            raise InputError(f"attention shows one image; {len(photos)} were given.")
        self._masks_call = "masks" if masks is not None else "image.masks"
        self.objects = Objects(model, getattr(image, "masks", None) if masks is None else masks, overlap)
        super().__init__()
        self.model, self.image, self.overlap = model, photos[0], overlap
        self._copy = cancellable_copy(model)
        self._rows = QueryRows(self._copy, self.image.x)
        self.regions: AttentionRegions | None = None
        spec = model.spec
        self._pooling = model.readout.attention
        self.places = HeadPlaces(spec.n_layers, spec.n_heads, 0 if self._pooling is None else self._pooling.n_heads)
        self._looked: HeadMaps | None = None
        self.query = 0 if spec.n_prefix else self._token([spec.grid[0] // 2, spec.grid[1] // 2])

        names = [("the chosen patch", PATCH), *((name, i) for i, name in enumerate(prefix_names(spec)))]
        self.token = ipywidgets.Dropdown(
            options=names if self._pooling is None else [*names, ("pooling head", POOL)], description="query"
        )
        self.order = HeadOrder()
        self.object = ipywidgets.Dropdown(
            options=[(name, place) for place, name in enumerate(self.objects.names)], description="object"
        )
        self.clear = ipywidgets.Button(description="clear this object", tooltip="Remove all patches of this object")
        self.board = Board(
            ("modes", "smooth", "robust", "fade", "opacity", "colours", "top"),
            modes=["choose", "paint", "erase"],
            photos={"photo": self.image.png},
            largest=460,
            label="The photo, and where the chosen head looks",
        )
        self.grid = HeadGrid(
            layers=self.places.shape[0],
            heads=self.places.shape[1],
            rows=spec.grid[0],
            cols=spec.grid[1],
            chosen=[spec.n_layers - 1, 0],
            unasked=[] if self._pooling is None else [self.places.pool],
            unit="of its attention",
            table=colour_table().tobytes(),
            board=self.board,
            tile="map",
        )
        self.sums = RegionSums(self.places)
        self._lay_out(
            [
                group("Query", self.token),
                group("Order of heads", *self.order.controls),
                group("Objects", self.object, self.clear),
                self.sums.controls,
            ],
            beside(self.board, self.grid),
            self.sums,
        )
        self._on(self.token, "value", self._on_token)
        self._on(self.board, "chosen", self._on_patch)
        self._on(self.board, "painted", lambda: self._paint(self.board.painted))
        for control in self.order.controls:
            self._on(control, "value", self._draw_grid)
        self._on(self.grid, "chosen", self._draw_head)
        for call in (self._draw_objects, self._changed):
            self._on(self.grid, "scale", call)
        for name in self.board.look:
            self._on(self.board, name, self._changed)
        self._on(self.object, "value", self._draw_objects)
        self.clear.on_click(self._clear)
        for control in (self.sums.quantity, self.sums.heads):
            self._on(control, "value", self._draw_sums)
        self._on(self.sums.curve, "current", self._on_layer)
        with self._shown_errors():
            self.look(self.query)

    def look(self, query: int) -> None:
        """Make a token the query.

        Args:
            query: Its number: prefix tokens first, then patches in reading order.

        Raises:
            InputError: there is no such token.
        """
        if not 0 <= query < self.model.spec.n_tokens:
            raise InputError(f"There is no token {query}; the last one is {self.model.spec.n_tokens - 1}.")
        self.query = query
        if self._in_pool:  # which has its own query
            layer, head = self.model.n_layers - 1, self.grid.chosen[1]
            self.grid.chosen = list(self.places.nearest(layer, head))
        self._update()

    @property
    def weights(self) -> Float[Tensor, "layer head token"] | None:
        """The query's attention to every token in float16; None until it is read."""
        return self._rows.get(self.query)

    @property
    def pool(self) -> Float[Tensor, "head token"] | None:
        """The attention of a head that pools by attention, in float16; None until read, or without such a head."""
        return self._rows.pool

    @property
    def map(self) -> Float[Tensor, "row col"] | None:
        """The attention of the chosen head or mean to the patches; None until it is read."""
        looked = self._looked
        return None if looked is None else torch.from_numpy(looked.maps[self._chosen].copy())

    @property
    def link(self) -> str:
        """The Python calls that compute what is shown."""
        chosen, call, spec = self._chosen, self.image.call, self.model.spec
        lines = map_calls(call, spec, self._pooling, self.query, self.places, chosen)
        if self.objects.masks:
            lines += region_calls(call, spec, self.objects, self._masks_call, self.overlap)
            lines += sum_calls(self._in_pool, self.sums.quantity.value, self.sums.of_heads(chosen))
        return "\n".join(lines)

    @property
    def file_name(self) -> str:
        """Name of saved files: the model and the image."""
        return f"{self.model.model_name} {self.image.name} attention"

    def to_figure(self) -> Figure:
        """The photo with query and objects, the chosen head's map with its scale, all heads, and the region sums."""
        looked, highs = self._looked, "robust" if self.board.robust else "full"
        return attention_figure(
            AttentionScene(
                title=self.model.model_name,
                query=self._query_words,
                cell=self._cell,
                pixels=self.image.pixels,
                objects=self.objects.colours(),
                board=self.board,
                maps=None if looked is None else looked.maps,
                highs=None if looked is None else looked.ends(self.grid.scale)[highs],
                arrangement=self.order.arranged(self.places, self._table),
                chosen=self._chosen,
                place=self.places.words(*self._chosen),
                regions=self.regions,
                quantity=self.sums.quantity.value,
                heads=self.sums.of_heads(self._chosen),
            )
        )

    def to_dataframe(self) -> pd.DataFrame:
        """One row per head in the order shown: entropy, distance, region mass, and where the query's attention goes.

        The layer of a pooling head is "pool". Empty until the attention is read.
        """
        table = self._table
        return pd.DataFrame() if table is None else self.order.sorted_rows(table, self.places)

    # -- events ------------------------------------------------------------------------------------------------------

    @property
    def _chosen(self) -> tuple[int, int]:
        layer, head = self.grid.chosen
        return layer, head

    @property
    def _in_pool(self) -> bool:
        """Whether the chosen row is the pooling head, whose query is its own."""
        return self._chosen[0] == self.places.pool

    @property
    def _cell(self) -> list[int]:
        """Row and column of the query patch, or empty."""
        patch = self.query - self.model.spec.n_prefix
        return list(divmod(patch, self.model.grid[1])) if patch >= 0 and not self._in_pool else []

    @property
    def _query_words(self) -> str:
        return "pooling head" if self._in_pool else token_words(self.model.spec, self.query)

    def _token(self, cell: list[int]) -> int:
        return self.model.spec.n_prefix + cell[0] * self.model.grid[1] + cell[1]

    def _on_patch(self) -> None:
        if self.board.chosen == self._cell:
            return
        # Escape clears the choice, but there has to be a query.
        self.look(self._token(self.board.chosen) if self.board.chosen else 0)

    def _on_token(self) -> None:
        if self.token.value == self._token_choice:
            return
        if self.token.value == POOL:
            self.grid.chosen = list(self.places.nearest(self.places.pool, self._chosen[1]))
        elif self.token.value >= 0:
            self.look(self.token.value)
        else:
            patch = self.query if self.query >= self.model.spec.n_prefix else None
            self.look(self._token([size // 2 for size in self.model.grid]) if patch is None else patch)

    @property
    def _token_choice(self) -> int:
        return POOL if self._in_pool else PATCH if self._cell else self.query

    def _on_layer(self) -> None:
        if self.sums.curve.current != self._chosen[0]:
            self.grid.chosen = list(self.places.nearest(self.sums.curve.current, self._chosen[1]))

    def _clear(self, _: Any) -> None:
        with self._shown_errors():
            self._paint([])

    def _paint(self, cells: list[int]) -> None:
        if self.objects.paint(self.object.value, cells):
            self.regions = None
            self._update()

    def _update(self) -> None:
        """Show what is known for this query and these objects, and compute the rest."""
        self._draw_query()
        jobs = []
        if self.weights is None:
            key = self._rows.key(self.query)
            jobs.append(Job(("rows", key), lambda: self._rows.read(key), self._on_rows(key)))
        masks = self.objects.masks
        if masks and self.regions is None:
            patches = self.objects.regions
            run = partial(attention_regions, self._copy, self.image.x, masks, progress=False)
            jobs.append(Job(("regions", patches.tobytes()), run, self._on_regions(patches)))
        self._replace_jobs(jobs)

    def _on_rows(self, key: int | None) -> Any:
        def receive(rows: Tensor) -> None:
            self._rows.keep(key, rows)
            self._draw_query()

        return receive

    def _on_regions(self, patches: np.ndarray) -> Any:
        def receive(regions: AttentionRegions) -> None:
            if patches is self.objects.regions:  # otherwise the objects have changed since
                self.regions = regions
                self._draw_grid()
                self._draw_sums()

        return receive

    # -- display -----------------------------------------------------------------------------------------------------

    @property
    def _table(self) -> pd.DataFrame | None:
        looked, spec = self._looked, self.model.spec
        if looked is None:
            return None
        return head_table(looked.weights, self.query, self._rows, spec, self.places, self.objects, self.regions)

    def _draw_query(self) -> None:
        """Draw all heads for the query."""
        weights, grid = self.weights, self.model.grid
        self._looked = None if weights is None else HeadMaps(with_means(weights, self.pool, self.places), grid)
        self._draw_grid()
        self._draw_head()

    def _draw_grid(self) -> None:
        """Draw the grid of heads in the chosen order."""
        table, spec = self._table, self.model.spec
        arrangement = self.order.arranged(self.places, table)
        traits: dict[str, Any] = {**arrangement.traits, "caption": f"all heads{self.order.words}"}
        if table is None or self._looked is None:
            slow = "" if self._rows.whole else " (all attention does not fit in memory: one query is read at a time)"
            traits |= {"tiles": b"", "highs": b"", "tips": [], "caption": f"computing{slow}"}
        else:
            if self.regions is not None or not self.objects.masks:
                self.order.offer(table)
            told = dict.fromkeys((ENTROPY, DISTANCE, *([self.order.by.value] if self.order.by.value in table else [])))
            numbers = {name: as_grid(table, name, self.places) for name in told}
            traits |= self._looked.traits()
            traits["tips"] = head_tips(self._looked.weights, spec, self.query, self.places, numbers)
        set_all(self.grid, traits)
        self._changed()

    def _draw_head(self) -> None:
        """Draw the large map of the chosen head, and name the query."""
        nearest = list(self.places.nearest(*self._chosen))
        if nearest != self.grid.chosen:  # the pooling head may have a different number of heads
            self.grid.chosen = nearest
            return
        self.token.value = self._token_choice
        self.board.chosen = self._cell
        cell = self.query - self.model.spec.n_prefix
        self.grid.query = list(divmod(cell, self.model.grid[1])) if cell >= 0 else []
        self.grid.label = f"Attention of all heads from the {self._query_words}"
        self._draw_objects()
        self._draw_sums()

    def _draw_objects(self) -> None:
        """Draw the photo with its objects, and the chosen map."""
        brush, looked = self.object.value, self._looked
        scores = None if looked is None else looked.maps[self._chosen]
        ends = {} if looked is None else looked.ends(self.grid.scale)
        highs = {name: float(values[self._chosen]) for name, values in ends.items()}
        tiles = [
            photo_with_objects(self.objects, brush, self._query_words),
            chosen_map(scores, self.model.grid, self.places.words(*self._chosen), highs),
        ]
        painted = self.objects.cells(brush)
        set_all(self.board, {"brush": self.objects.colour(brush), "painted": painted, "tiles": tiles})

    def _draw_sums(self) -> None:
        """Draw attention between regions over layers, and all kinds of pairs in the chosen layer."""
        if not self.objects.masks:
            self.sums.explain("Pass masks or paint an object to see attention between regions.")
        elif self.regions is None:
            self.sums.wait_for_numbers()
        else:
            self.sums.show(self.regions, self._chosen)
        self._changed()
