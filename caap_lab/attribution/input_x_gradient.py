"""Input times gradient of pixels (Shrikumar et al. 2016, arXiv 1605.01713)."""

from jaxtyping import Float
from torch import Tensor

from caap_lab.attribution.activations_and_gradients import differentiable_scores, sum_patches
from caap_lab.attribution.method import method
from caap_lab.models.base import HookedModel
from caap_lab.models.targets import Targets


def input_x_gradient(
    model: HookedModel, images: Float[Tensor, "batch 3 height width"], targets: Targets
) -> Float[Tensor, "batch row col"]:
    """Sum over a patch's pixels and channels of x dy/dx, x in normalised space; signed."""
    from captum.attr import InputXGradient

    def value(images: Tensor) -> Tensor:
        return differentiable_scores(targets, model(images))

    products = InputXGradient(value).attribute(images.detach().requires_grad_())
    return sum_patches(model, products.detach().sum(1))


INPUT_X_GRADIENT = method(
    input_x_gradient,
    name="input_x_gradient",
    family="gradient",
    source="Shrikumar et al. 2016, arXiv 1605.01713",
    needs="gradient",
    sign="signed",
    forwards=1,
    backwards=1,
    reads="pixels",
)
