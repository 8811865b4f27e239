"""The free context: the textbook interchange intervention (paper eq 1), one forward pass per patch."""

from functools import lru_cache

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from caap_lab.engine.blanks import BlankRun
from caap_lab.engine.plan import CaapPlan
from caap_lab.engine.source import SourceRun
from caap_lab.models.neighbour_tables import neighbourhood_table, table_masks
from caap_lab.models.neighbourhoods import Neighbourhood
from caap_lab.models.spec import ViTSpec
from caap_lab.models.vit import HookedViT


@torch.no_grad()
def score_patches_free(
    model: HookedViT,
    blank: BlankRun,
    source: SourceRun,
    plan: CaapPlan,
    chunk_size: int,
) -> Float[Tensor, "cutoff image patch classes"]:
    """Logits of every patch's patched context when all tokens evolve; `chunk_size` sequences run at once."""
    spec = model.spec
    patched = _patched_tokens(spec, plan.neighbourhood, model.device)
    scores = [
        patched_run(model, blank, source, image, chosen, plan.start, cutoff)
        for cutoff in plan.cutoffs
        for image in range(source.n_images)
        for chosen in patched.split(chunk_size)
    ]
    return torch.cat(scores).unflatten(0, (len(plan.cutoffs), source.n_images, len(patched)))


@lru_cache(maxsize=16)
def _patched_tokens(
    spec: ViTSpec, neighbourhood: Neighbourhood, device: torch.device
) -> Bool[Tensor, "sequence token"]:
    """Masks of the tokens that are patched with each patch, cached on the device; prefix tokens never are."""
    return F.pad(table_masks(neighbourhood_table(spec.grid, neighbourhood)), (spec.n_prefix, 0)).to(device)


def patched_run(
    model: HookedViT,
    blank: BlankRun,
    source: SourceRun,
    image: int,
    patched: Bool[Tensor, "sequence token"],
    start: int,
    cutoff: int,
) -> Float[Tensor, "sequence classes"]:
    """The blank's run from block `start` on, with one image's streams at the patched tokens before every block."""

    def patched_block(layer: int, resid: Tensor) -> Tensor:
        if layer < cutoff:
            resid = torch.where(patched[:, :, None], source.whole_resid(layer)[image], resid)
        return model.run_block(layer, resid)

    resid = blank.resid[start].expand(len(patched), -1, -1)
    class_tokens = [token.expand(len(patched), -1) for token in blank.class_tokens(start)]
    return model.unembed(*model.run_blocks(resid, range(start, model.n_layers), class_tokens, step=patched_block))
