"""Attention of the tokens of one image and of the pooling head, cached for fast responses as far as memory allows."""

from collections import OrderedDict
from typing import Any

import numpy as np
import psutil
import torch
from jaxtyping import Float, Float16
from torch import Tensor

from caap_lab.attribution.activations_and_gradients import block_hooks
from caap_lab.diagnostics.head_measures import attention_distance, attention_entropy, patch_distances
from caap_lab.models.device_dtype import widened
from caap_lab.models.vit import HookedViT

LARGEST = 2 << 30
"""Memory limit for one image's attention in bytes. DINOv2-g at 37 x 37 patches needs 3.6 GB, DINOv2-L 1.4 GB."""
KEPT = 16
"""Number of queries cached for an image whose attention is larger."""


class QueryRows:
    """The attention of every layer and head in float16; of one query at a time if all of it is too large.

    Attributes:
        whole: True if one run returns the attention of every query.
        nbytes: Size of all of it.
        entropy: Entropy of the patches' attention, [layer, head] in nats, mean over patches; None until the first run.
        distance: Mean attention distance of the patches in pixels, [layer, head]; None until the first run.
        pool: Attention of a head that pools by attention, 0 for tokens that it does not read; None until the first run,
            and for models without such a head.
    """

    def __init__(self, model: HookedViT, x: Float[Tensor, "1 3 height width"]) -> None:
        spec = model.spec
        self._model, self._x = model, x
        self._shape = (spec.n_layers, spec.n_heads, spec.n_tokens, spec.n_tokens)
        self.nbytes = 2 * spec.n_layers * spec.n_heads * spec.n_tokens**2
        self.whole = self.nbytes <= min(LARGEST, psutil.virtual_memory().available // 2)
        self.entropy: Float[np.ndarray, "layer head"] | None = None
        self.distance: Float[np.ndarray, "layer head"] | None = None
        self.pool: Float16[Tensor, "head key"] | None = None
        self._kept: OrderedDict[int | None, Float16[Tensor, "layer head *query key"]] = OrderedDict()

    def key(self, query: int) -> int | None:
        """The argument of `read` for a query: all queries (None), or this one."""
        return None if self.whole else query

    @torch.no_grad()
    def read(self, key: int | None) -> Float16[Tensor, "layer head *query key"]:
        """Run the model; the attention of all queries, or of one."""
        rows = torch.empty(
            self._shape if key is None else (*self._shape[:2], self._shape[3]), dtype=torch.float16, device="cpu"
        )
        names = block_hooks(self._model, "attn.pattern")
        distances = patch_distances(self._model.spec)
        measured: list[Tensor] = []

        def keep(pattern: Tensor, hook: Any) -> None:
            rows[names.index(hook.name)] = pattern[0] if key is None else pattern[0, :, key]
            if self.entropy is None:
                wide = widened(pattern)
                of_layer = attention_entropy(wide, len(distances)), attention_distance(wide, distances)
                measured.append(torch.stack(of_layer)[:, 0].cpu().double())

        attention = self._model.readout.attention

        def keep_pool(pattern: Tensor, hook: Any) -> None:
            assert attention is not None
            spec = self._model.spec
            pool = torch.zeros(attention.n_heads, spec.n_tokens, dtype=torch.float16, device="cpu")
            pool[:, list(spec.read_tokens)] = pattern[0, :, attention.answers].float().mean(1).half().cpu()
            self.pool = pool

        hooks = [(name, keep) for name in names]
        if attention is not None:
            hooks.append(("attn_pool.hook_pattern", keep_pool))
        with self._model.hooks(fwd_hooks=hooks):
            self._model(self._x, stop_at_layer=self._model.n_layers if attention is None else None)
        if measured:
            self.entropy, self.distance = torch.stack(measured, dim=1).numpy()
        return rows

    def keep(self, key: int | None, rows: Float16[Tensor, "layer head *query key"]) -> None:
        """Cache the result of `read`."""
        self._kept[key] = rows
        while len(self._kept) > KEPT:
            self._kept.popitem(last=False)

    def get(self, query: int) -> Float16[Tensor, "layer head key"] | None:
        """The attention of a query, if it is cached."""
        rows = self._kept.get(self.key(query))
        return rows[:, :, query] if rows is not None and self.whole else rows
