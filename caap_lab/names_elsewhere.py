"""Names that `cl` does not have, with what to use instead of those that users of other tools type."""

from collections.abc import Sequence
from difflib import get_close_matches

_LOAD = "cl.load_model(name) loads a timm model, and cl.wrap(module) takes one that is already there"
_TRACE = "cl.trace restores activations place by place, and cl.run_patched runs images with any cl.Patch"
ELSEWHERE = {
    **dict.fromkeys(("HookedTransformer", "HookedRootModule", "load_hooked_model", "from_pretrained"), _LOAD),
    **dict.fromkeys(
        ("ActivationCache", "run_with_cache"),
        "model.run_with_cache(images) returns logits and a cache; model.record keeps activations of many images",
    ),
    **dict.fromkeys(("run_with_hooks", "hooks", "add_hook"), "they are methods of a model: model.run_with_hooks"),
    **dict.fromkeys(("activation_patching", "patching", "patch", "causal_tracing", "get_act_patch"), _TRACE),
    **dict.fromkeys(
        ("direct_logit_attribution", "logit_attrs", "logit_diff"),
        "cl.logit_attribution has what each part adds to a score; cl.contrast(a, b) is the difference of two logits",
    ),
    **dict.fromkeys(("SAE", "StandardSparseAutoencoder"), "cl.SparseAutoencoder"),
    "attention_rollout": 'cl.attribute(model, image, "rollout")',
    **dict.fromkeys(("show_cam_on_image", "visualize_image_attr"), "every map draws itself: m.plot()"),
    **dict.fromkeys(("insertion", "deletion", "pixel_flipping"), "cl.insertion_deletion has both curves"),
    **dict.fromkeys(("pointing_game", "aupr"), "cl.localisation has the pointing game and areas under curves"),
}
"""What to use, by a name of TransformerLens, ViT-Prisma, pytorch-grad-cam, Captum or Quantus."""


def no_name(name: str, public: Sequence[str]) -> AttributeError:
    """The error for a name that `cl` does not have.

    Args:
        name: The name.
        public: All names that it has.
    """
    from caap_lab.attribution.registry import METHODS

    plain = f"caap_lab has no name {name!r}."
    if name in ELSEWHERE:
        return AttributeError(f"{plain} Instead: {ELSEWHERE[name]}.", name=name)
    for method in METHODS:
        if _bare(method) == _bare(name):
            return AttributeError(f'{plain} It is a method: cl.attribute(model, image, "{method}").', name=name)
    near = get_close_matches(name, public, n=3, cutoff=0.6)
    return AttributeError(f"{plain} Nearest: {', '.join(near)}." if near else plain, name=name)


def _bare(name: str) -> str:
    return name.lower().replace("_", "")
