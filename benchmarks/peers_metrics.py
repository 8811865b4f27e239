"""Deletion curves beside Quantus's pixel flipping."""

from typing import Any

import caap_lab as cl
from benchmarks.peers_job import PEERS, TARGET, Calls, Job, inputs, largest_difference


def jobs() -> list[Job]:
    """All of them."""
    return [Job("pixel flipping", PEERS["Quantus"], "ViT-tiny, 96 px", pixel_flipping)]


def pixel_flipping(name: str) -> Calls:
    """The score after each patch that is replaced by the mean colour, highest score first.

    caap_lab computes the insertion curve in the same call, which Quantus does not have.
    """
    import quantus

    vit, model, image = inputs(name)
    n_patches, pixels = model.spec.n_patches, model.patch_size[0] * model.patch_size[1]
    m = cl.attribute(model, image, "input_x_gradient", TARGET, progress=False)
    assert isinstance(m, cl.AttributionMap)
    flipping = quantus.PixelFlipping(features_in_step=3 * pixels, perturb_baseline=0.0, disable_warnings=True)
    enlarged = m.scores.repeat_interleave(model.patch_size[0], 0).repeat_interleave(model.patch_size[1], 1)
    given: dict[str, Any] = {"x_batch": image.numpy(), "y_batch": [TARGET], "a_batch": enlarged[None, None].numpy()}

    def ours() -> Any:
        return cl.insertion_deletion(model, image, m, protocol="patches", progress=False)

    def compare(mine: Any, other: Any) -> float:
        assert len(mine.deletion_curve) == n_patches + 1  # Quantus leaves out the whole image
        return largest_difference(mine.deletion_curve[1:], other[0])

    return Calls(ours, lambda: flipping(model=vit, softmax=True, device="cpu", **given), compare)
