"""Attention in one's hand: click a patch, and see where every head of every layer looks from there."""

from typing import Any, Literal

import ipywidgets
import numpy as np
import pandas as pd
from jaxtyping import Float, UInt8
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
from caap_lab.plots.style import COLOUR_MAP
from caap_lab.widgets.attention_calls import map_calls, region_calls, sum_calls
from caap_lab.widgets.attention_figure import AttentionScene, attention_figure
from caap_lab.widgets.attention_words import colour_scale, head_tips, place_words, prefix_names
from caap_lab.widgets.background import Job, cancellable_copy
from caap_lab.widgets.head_grid import HeadGrid
from caap_lab.widgets.objects import Objects
from caap_lab.widgets.panel import Panel, group
from caap_lab.widgets.photos import photos_of
from caap_lab.widgets.picture import Picture
from caap_lab.widgets.pixels import png
from caap_lab.widgets.query_rows import QueryRows
from caap_lab.widgets.region_sums import RegionSums

COLOUR_MAPS = (COLOUR_MAP, "cividis", "magma", "gray")
RANGES = {"each head": (2, 3), "each layer": (1, 2, 3), "all heads": (0, 1, 2, 3)}
"""Where the last colour's value comes from, and the axes of [layer, head, row, col] that it is the highest of."""
WIDTH = 240
"""Pixels of a picture, so that both and the heads of a small model stand side by side."""
CONTROL_WIDTH = "205px"
MODES = {"choose a query": "choose", "paint": "paint", "erase": "erase"}


def attention(model: HookedViT, image: Images, masks: Masks | None = None, *, overlap: float = 0.5) -> "AttentionView":
    """See where each head of each layer looks from a patch or the class token, and how attention divides in regions.

    Click a patch of the photo to make it the query, or choose a prefix token. Objects come from masks, or are painted
    in the photo patch by patch; the sums over their regions are those of `cl.attention_regions`.

    Args:
        model: A Vision Transformer in evaluation mode.
        image: One image, or a demo scene, whose masks are taken.
        masks: The image's objects: a bool mask [H, W] as the model saw it (`model.preprocessing.mask` makes one) or of
            the size of the grid of patches, or a list or dict of them. They can be painted over.
        overlap: Least share of a patch that makes it an object's, from 0 (any pixel) to 1.

    Returns:
        The widget. `weights` is the query's attention, `map` the chosen head's, `pool` that of a head that pools by
        attention (its row stands below the layers), `regions` the sums between regions, `to_figure()` what is shown as
        a figure, and `link` the Python calls that compute it.

    Raises:
        InputError: the model has no attention or is in training mode, the image is not one, or masks do not fit.
    """
    return AttentionView(model, image, masks, overlap)


class AttentionView(Panel):
    """The widget of `attention`.

    Attributes:
        query: Number of the token that looks, prefix tokens first; `look` changes it.
        objects: The object of each patch.
        regions: Attention between the objects; None without objects and while it is computed.
    """

    def __init__(self, model: HookedViT, image: Images, masks: Masks | None, overlap: float) -> None:
        check_kind(model, "attention")
        check_eval(model)
        check_share("overlap", overlap)
        if isinstance(image, ImageSet):
            raise InputError("attention shows one image: give one of the data set, images[0].image.")
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
        self._tiles: UInt8[np.ndarray, "layer head row col"] | None = None
        self._highs: Float[np.ndarray, "layer head"] | None = None
        spec = model.spec
        self._prefix_names = prefix_names(spec)
        self._pooling = model.readout.attention
        self.query = 0 if spec.n_prefix else self._token([spec.grid[0] // 2, spec.grid[1] // 2])

        rows, cols = spec.grid
        self.token = ipywidgets.Dropdown(
            options=[("the chosen patch", -1), *((name, i) for i, name in enumerate(self._prefix_names))],
            description="query",
        )
        self.range = ipywidgets.Dropdown(
            options=list(RANGES), description="range", tooltip="Colours go from 0 to the highest weight of this"
        )
        self.colours = ipywidgets.Dropdown(options=COLOUR_MAPS, description="colours")
        self.opacity = ipywidgets.FloatSlider(0.7, min=0, max=1, step=0.05, description="opacity")
        self.photo = Picture(photo=self.image.png, rows=rows, cols=cols, width=WIDTH, opacity=0.55)
        self.overlay = Picture(photo=self.image.grey_png, rows=rows, cols=cols, width=WIDTH, opacity=self.opacity.value)
        self.photo.label = "The photo"
        for picture in (self.photo, self.overlay):
            picture.add_class("caap-one-line")
        self._scale = ipywidgets.HTML()
        names = [*map(str, range(spec.n_layers)), *([] if self._pooling is None else ["pool"])]
        heads = max(map(self._heads_of, range(len(names))))
        self.grid = HeadGrid(layers=len(names), names=names, heads=heads, rows=rows, cols=cols)
        self.grid.chosen = [spec.n_layers - 1, 0]
        self.mode = ipywidgets.ToggleButtons(options=MODES, tooltips=["", "Paint the object's patches", "Erase them"])
        self.mode.style.button_width = "auto"
        self.object = ipywidgets.Dropdown(
            options=[(name, place) for place, name in enumerate(self.objects.names)],
            description="object",
        )
        self.clear = ipywidgets.Button(description="clear", tooltip="Take all patches of this object away")
        self.clear.layout.width = "auto"
        for control in (self.token, self.range, self.colours, self.opacity, self.object):
            control.style.description_width = "initial"
        self.sums = RegionSums(spec.n_layers, CONTROL_WIDTH)
        self._lay_out(
            [
                group("query", self.token),
                group("look", self.range, self.colours, self.opacity),
                group("objects", self.mode, self.object, self.clear),
            ],
            ipywidgets.HBox([self.photo, ipywidgets.VBox([self.overlay, self._scale]), self.grid], layout=_WRAP),
            self.sums,
        )
        self._on(self.token, "value", self._on_token)
        for picture in (self.photo, self.overlay):
            self._watch(picture)
        for control in (self.range, self.colours):
            self._on(control, "value", self._draw_query)
        self._on(self.opacity, "value", self._set_opacity)
        self._on(self.grid, "chosen", self._draw_head)
        self._on(self.mode, "value", self._set_mode)
        self._on(self.object, "value", self._draw_objects)
        self._on(self.photo, "painted", lambda: self._paint(self.photo.painted))
        self.clear.on_click(self._clear)
        for control in (self.sums.quantity, self.sums.heads):
            self._on(control, "value", self._draw_sums)
        self._on(self.sums.curve, "current", self._on_layer)
        with self._shown_errors():
            self._draw_objects()
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
        self.photo.chosen = self.overlay.chosen = self._cell
        self.token.value = -1 if self._cell else query
        self._update()

    @property
    def weights(self) -> Float[Tensor, "layer head token"] | None:
        """The query's attention to every token in float16; None while it is read."""
        return self._rows.get(self.query)

    @property
    def pool(self) -> Float[Tensor, "head token"] | None:
        """The attention of a head that pools by attention, in float16; None while it is read, and without such one."""
        return self._rows.pool

    @property
    def map(self) -> Float[Tensor, "row col"] | None:
        """The chosen head's attention to the patches; None while it is read."""
        weights, (layer, head) = self._rows.with_pool(self.query), self.grid.chosen
        return (
            None if weights is None else weights[layer, head, self.model.spec.n_prefix :].unflatten(0, self.model.grid)
        )

    @property
    def link(self) -> str:
        """The Python calls that compute what is shown."""
        (layer, head), call, spec = self.grid.chosen, self.image.call, self.model.spec
        lines = map_calls(call, spec, self._pooling, self.query, (layer, head))
        if self.objects.masks:
            lines += region_calls(call, spec, self.objects, self._masks_call, self.overlap)
            lines += sum_calls(layer >= spec.n_layers, self.sums.quantity.value, self._heads)
        return "\n".join(lines)

    @property
    def file_name(self) -> str:
        """What saved files are called: the model and the image."""
        return f"{self.model.model_name} {self.image.name} attention"

    def to_figure(self) -> Figure:
        """The photo with query and objects, the chosen head's map with its scale, all heads, and the region sums."""
        layer, head = self.grid.chosen
        shown = self.map
        return attention_figure(
            AttentionScene(
                title=self.model.model_name,
                query=self._query_words,
                cell=self._cell,
                pixels=self.image.pixels,
                objects=self.objects.colours(),
                tiles=self._tiles,
                names=self.grid.names,
                chosen=(layer, head),
                place=place_words(layer, head, self.model.n_layers),
                map=None if shown is None else shown.float().numpy(),
                high=1.0 if self._highs is None else float(self._highs[layer, head]),
                colour_map=self.colours.value,
                opacity=self.opacity.value,
                regions=self.regions,
                quantity=self.sums.quantity.value,
                heads=self._heads,
            )
        )

    def to_dataframe(self) -> pd.DataFrame:
        """One row per layer and head: the query's attention to each prefix token, to all patches, and to the first."""
        weights, spec = self.weights, self.model.spec
        if weights is None:
            return pd.DataFrame()
        table = weights.float().flatten(0, 1).numpy()
        layers, heads = np.divmod(np.arange(len(table)), spec.n_heads)
        patches = table[:, spec.n_prefix :]
        rows, cols = np.divmod(patches.argmax(axis=1), spec.grid[1])
        return pd.DataFrame(
            {
                "layer": layers,
                "head": heads,
                **{name: table[:, place] for place, name in enumerate(self._prefix_names)},
                "patches": patches.sum(axis=1),
                "highest": patches.max(axis=1),
                "row": rows,
                "col": cols,
            }
        )

    # -- what happens ------------------------------------------------------------------------------------------------

    @property
    def _cell(self) -> list[int]:
        patch = self.query - self.model.spec.n_prefix
        return list(divmod(patch, self.model.grid[1])) if patch >= 0 else []

    @property
    def _query_words(self) -> str:
        if not self._cell:
            return self._prefix_names[self.query]
        return f"patch at row {self._cell[0]}, column {self._cell[1]}"

    @property
    def _heads(self) -> Literal["mean"] | int:
        layer, head = self.grid.chosen
        return self.sums.of_heads(head) if layer < self.model.n_layers else "mean"

    def _heads_of(self, layer: int) -> int:
        """Number of heads of a layer, or of the pooling head behind the last one."""
        return self.model.spec.n_heads if layer < self.model.n_layers or not self._pooling else self._pooling.n_heads

    def _token(self, cell: list[int]) -> int:
        return self.model.spec.n_prefix + cell[0] * self.model.grid[1] + cell[1]

    def _watch(self, picture: Picture) -> None:
        def chosen() -> None:
            if picture.chosen == self._cell:
                return
            if picture.chosen:
                self.look(self._token(picture.chosen))
            else:  # Escape; something has to be the query
                self.look(0)

        self._on(picture, "chosen", chosen)

    def _on_token(self) -> None:
        if self.token.value >= 0:
            if self.token.value != self.query:
                self.look(self.token.value)
        elif not self._cell:
            self.look(self._token([size // 2 for size in self.model.grid]))

    def _on_layer(self) -> None:
        self.grid.chosen = [self.sums.curve.current, self.grid.chosen[1]]

    def _set_opacity(self) -> None:
        """The browser applies it: no picture is sent again. Only the one in the saved notebook is drawn again."""
        self.overlay.opacity = self.opacity.value
        self._changed()

    def _set_mode(self) -> None:
        self.photo.mode = self.mode.value

    def _clear(self, _: Any) -> None:
        with self._shown_errors():
            self._paint([])

    def _paint(self, cells: list[int]) -> None:
        if self.objects.paint(self.object.value, cells):
            self.regions = None
            self._draw_objects()
            self._update()

    def _update(self) -> None:
        """Show what is known of this query and these objects, and compute the rest."""
        self._draw_query()
        jobs = []
        if self.weights is None:
            key = self._rows.key(self.query)
            jobs.append(Job(("rows", key), lambda: self._rows.read(key), self._on_rows(key)))
        masks = self.objects.masks
        if masks and self.regions is None:
            patches = self.objects.regions
            jobs.append(Job(("regions", patches.tobytes()), self._run_regions(masks), self._on_regions(patches)))
        self._replace_jobs(jobs)

    def _on_rows(self, key: int | None) -> Any:
        def receive(rows: Tensor) -> None:
            self._rows.keep(key, rows)
            self._draw_query()

        return receive

    def _run_regions(self, masks: dict[str, np.ndarray]) -> Any:
        return lambda: attention_regions(self._copy, self.image.x, masks, progress=False)

    def _on_regions(self, patches: np.ndarray) -> Any:
        def receive(regions: AttentionRegions) -> None:
            if patches is self.objects.regions:  # else something was painted meanwhile
                self.regions = regions
                self._draw_sums()

        return receive

    # -- what is seen ------------------------------------------------------------------------------------------------

    def _draw_objects(self) -> None:
        place = self.object.value
        with self.photo.hold_sync():
            self.photo.brush = self.objects.colour(place)
            self.photo.painted = self.objects.cells(place)
            self.photo.overlay = png(self.objects.colours(leave_out=place))
            cols = self.model.grid[1]
            self.photo.tips = [
                f"row {cell // cols}, column {cell % cols}: {self.objects.word(cell)}"
                for cell in range(self.objects.regions.size)
            ]
        self._draw_sums()

    def _draw_query(self) -> None:
        """All heads of the query."""
        weights, spec = self._rows.with_pool(self.query), self.model.spec
        self.photo.caption = f"query: {self._query_words}"
        with self.grid.hold_sync():
            self.grid.query = self._cell
            self.grid.label = f"Attention of all heads from the {self._query_words}"
            self.grid.table = colour_table(self.colours.value).tobytes()
            if weights is None:
                self._tiles = self._highs = None
                self.grid.tiles, self.grid.tips = b"", []
                slow = "" if self._rows.whole else " (all attention is too large to keep, so one query is read)"
                self.grid.caption = f"computing{slow}"
            else:
                maps = weights[..., spec.n_prefix :].float().unflatten(-1, spec.grid).numpy()
                highs = maps.max(axis=RANGES[self.range.value], keepdims=True)
                shares = maps / np.where(highs > 0, highs, 1)
                self._tiles = np.rint(255 * shares).astype(np.uint8)
                self._highs = np.broadcast_to(highs[..., 0, 0], maps.shape[:2])
                self.grid.tiles = self._tiles.tobytes()
                self.grid.tips = head_tips(weights, spec, self.query)
                self.grid.caption = "layers down, heads across"
        self._draw_head()

    def _draw_head(self) -> None:
        """The chosen head, large."""
        layer, head = self.grid.chosen
        if head >= self._heads_of(layer):  # the pooling head may have another number of heads
            self.grid.chosen = [layer, self._heads_of(layer) - 1]
            return
        shown, cols, place = self.map, self.model.grid[1], place_words(layer, head, self.model.n_layers)
        with self.overlay.hold_sync():
            who = f", from the {self._query_words}" if layer < self.model.n_layers else ""
            self.overlay.label = f"Attention of {place}{who}"
            self.overlay.caption = place
            if shown is None or self._tiles is None or self._highs is None:
                self.overlay.overlay, self.overlay.tips = b"", []
                self.overlay.caption += ": computing"
                self._scale.value = ""
            else:
                colours = colour_table(self.colours.value)
                self.overlay.overlay = png(colours[self._tiles[layer, head]])
                self._scale.value = colour_scale(colours, float(self._highs[layer, head]))
                self.overlay.tips = [
                    f"row {place // cols}, column {place % cols}: {value:.2%}"
                    for place, value in enumerate(shown.flatten().tolist())
                ]
        self._draw_sums()

    def _draw_sums(self) -> None:
        """Attention between regions over layers, and all kinds of pairs in the chosen layer."""
        if not self.objects.masks:
            self.sums.explain("Give masks or paint an object to see how attention divides between regions.")
        elif self.regions is None:
            self.sums.wait_for_numbers()
        else:
            self.sums.show(self.regions, *self.grid.chosen)
        self._changed()


_WRAP = {"flex_flow": "row wrap"}
