"""The free context: the textbook interchange intervention (paper eq 1), one forward pass a patch."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from caap_lab.engine.blanks import BlankRun
from caap_lab.engine.plan import CaapPlan
from caap_lab.engine.source import SourceRun
from caap_lab.models.neighbour_tables import neighbourhood_table, table_masks
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
    table = neighbourhood_table(spec.grid, plan.neighbourhood)
    patched = F.pad(table_masks(table), (spec.n_prefix, 0)).to(model.device)  # prefix tokens are never patched
    scores = []
    for cutoff in plan.cutoffs:
        for image in range(source.n_images):
            for chosen in patched.split(chunk_size):
                resid = blank.resid[plan.start].expand(len(chosen), -1, -1)
                class_tokens = [
                    resid[:1].expand(len(chosen), -1)
                    for layer, resid in enumerate(blank.resid[1 : plan.start + 1])
                    if model.reads_class_token(layer)
                ]
                for layer in range(plan.start, spec.n_layers):
                    if layer < cutoff:
                        resid = torch.where(chosen[:, :, None], source.whole_resid(layer)[image], resid)
                    resid = model.run_block(layer, resid)
                    if model.reads_class_token(layer):
                        class_tokens.append(resid[:, 0])
                scores.append(model.unembed(resid, class_tokens))
    return torch.cat(scores).unflatten(0, (len(plan.cutoffs), source.n_images, len(table)))
