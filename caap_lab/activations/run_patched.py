"""A single run with patches."""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

from caap_lab.activations.patch import Patch, as_patches, edits
from caap_lab.errors import InputError
from caap_lab.models.base import Images, check_kind
from caap_lab.models.running import runs_model
from caap_lab.models.vit import HookedViT


@runs_model
def run_patched(model: HookedViT, images: Images, patches: Patch | Sequence[Patch]) -> Float[Tensor, "batch classes"]:
    """Logits of images with replaced activations.

    ```python
    logits = cl.run_patched(model, images, cl.Patch("z", 3, heads=[0]))    # head 3.0 set to 0
    ```

    If two patches affect the same hook point, the later one takes precedence. Gradients flow, unless called under
    no_grad.

    Args:
        model: The model.
        images: The images that receive the activations (the target context).
        patches: One patch or several.

    Raises:
        InputError: a patch is invalid for the model, or could not change the output.
    """
    check_kind(model, "run_patched")
    given = as_patches(patches)
    if not given:
        raise InputError("No patches were given; call model(images) for a plain run.")
    batch = model.preprocess(images)
    made = [edit for patch in given for edit in edits(model, patch, len(batch))]
    with model.hooks(fwd_hooks=[(site.hook, edit) for site, edit in made]):
        return model(batch)
