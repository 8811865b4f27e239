"""LibraGrad (Mehri et al., CVPR 2025): a backward pass in which gradient times input is conserved.

The forward pass stays bit-equal. Changes of the backward pass:

- attention: queries and keys are constants, so that gradient flows through the values only;
- LayerNorm and RMSNorm: the standard deviation is a constant;
- an activation function x g(x) (GELU in all forms, SiLU): the gate g is a constant;
- a gated product u v: both factors get half of the gradient;
- L2 normalisation before a zero-shot head: the norm is a constant.

Linear layers, LayerScale, residual sums and mean pooling conserve it without changes. The rules, which AttnLRP shares,
are in `caap_lab.attribution.backward_rules`.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from caap_lab.attribution.backward_rules import Rules, ruled
from caap_lab.models.base import HookedModel, check_kind
from caap_lab.models.running import check_gradients

_LIBRA = Rules("LibraGrad", constant_patterns=True)


@contextmanager
def libragrad(model: HookedModel) -> Iterator[None]:
    """A context in which every gradient of the model follows LibraGrad's rules; forward passes do not change.

    ```python
    with cl.libragrad(model):
        m = cl.attribute(model, image, "input_x_gradient", 4)
    ```

    Any gradient method becomes its Libra version: `with cl.libragrad(model): cl.attribute(model, image, "grad_cam")`.
    Contexts may be nested; the rules are applied once. Other threads wait for the model.

    Raises:
        InputError: there is no rule for a part of the model.
    """
    check_kind(model, "libragrad", ("vit", "mixer"))
    check_gradients(model, "libragrad")
    with ruled(model, _LIBRA):
        yield
