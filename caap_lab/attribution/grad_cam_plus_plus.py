"""Grad-CAM++ (Chattopadhay et al. 2018, WACV, arXiv 1710.11063) on the last maps of a CNN or ViT, or a layer's."""

from jaxtyping import Float
from torch import Tensor

from caap_lab.attribution.activations_and_gradients import read_layer_gradients
from caap_lab.attribution.grad_cam import Maps, cam_maps
from caap_lab.attribution.method import method
from caap_lab.models.base import HookedModel
from caap_lab.models.black_box import BlackBoxModel
from caap_lab.models.device_dtype import widened
from caap_lab.models.targets import Targets


def grad_cam_plus_plus(
    model: HookedModel, images: Float[Tensor, "batch 3 height width"], targets: Targets
) -> Float[Tensor, "batch row col"]:
    """map_p = ReLU(sum_k w_k a_{p,k}), w_k = sum_p alpha_{p,k} ReLU(g_{p,k}), g = dy/da.

    alpha_{p,k} = g^2 / (2 g^2 + (sum_q a_{q,k}) g^3 + 1e-6), where a are the activations that Grad-CAM reads: the last
    block's maps of a CNN, the last block's first normalisation of a ViT. The 1e-6 is that of the pytorch-grad-cam
    package, and not small compared with small gradients. Unlike in a CNN, the activations of a ViT may be negative: the
    denominator may be close to zero, and one channel may dominate all others.
    """
    return _weighted(*cam_maps(model, images, targets))


def grad_cam_plus_plus_of_layer(
    model: BlackBoxModel,
    images: Float[Tensor, "batch 3 height width"],
    targets: Targets,
    *,
    layer: str | None = None,
) -> Float[Tensor, "batch row col"]:
    """Grad-CAM++ at a layer of a black box, by name; None for the layer with the last maps."""
    return _weighted(*read_layer_gradients(model, images, targets, model.find_layer(layer)))


def _weighted(a: Maps, g: Maps) -> Float[Tensor, "batch row col"]:
    a, g = widened(a), widened(g)  # g^3 underflows in float16
    alpha = g**2 / (2 * g**2 + a.sum((2, 3), keepdim=True) * g**3 + 1e-6)
    weights = (alpha * g.relu()).sum((2, 3), keepdim=True)
    return (weights * a).sum(1).relu()


GRAD_CAM_PLUS_PLUS = method(
    grad_cam_plus_plus,
    name="grad_cam_plus_plus",
    family="gradient",
    source="Chattopadhay et al. 2018, arXiv 1710.11063",
    needs="gradient",
    sign="positive",
    forwards=1,
    backwards=1,
    reads="feature maps",
    on={"black_box": grad_cam_plus_plus_of_layer},
)
