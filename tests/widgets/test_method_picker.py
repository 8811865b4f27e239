"""Check boxes of methods, as Python sees them."""

import pytest
import traitlets

import caap_lab as cl
from caap_lab.attribution.cost import ModelSize
from caap_lab.attribution.registry import METHODS
from caap_lab.widgets.method_picker import MethodPicker


def test_value_is_in_order_and_never_empty(model: cl.HookedViT) -> None:
    picker = MethodPicker(["caap", "rollout", "grad_cam"], ["rollout", "caap"], model)
    assert picker.options == ("caap", "grad_cam", "rollout") and picker.value == ("caap", "rollout")
    picker.set_state({"value": ["rollout", "grad_cam"]})  # as it comes from the browser
    assert picker.value == ("grad_cam", "rollout")
    picker.value = ()
    assert picker.value == ("grad_cam", "rollout")
    with pytest.raises(traitlets.TraitError, match="saliency is not one of these methods: caap, grad_cam, rollout"):
        picker.value = ("saliency",)
    picker.close()


def test_cost_is_the_methods_own_on_this_model(model: cl.HookedViT) -> None:
    picker = MethodPicker(list(METHODS), ["caap"], model)
    size = ModelSize.of(model)
    assert len(picker.methods) == len(METHODS)
    for described in picker.methods:
        method = METHODS[described["name"]]
        assert described["passes"] == method.passes(size)
        assert (described["family"], described["source"]) == (method.family, method.source)
    picker.close()


def test_no_number_where_a_method_states_none(model: cl.HookedViT) -> None:
    cl.register("mine", lambda model, images, targets: images[:, 0], forwards="as many as it likes")
    try:
        picker = MethodPicker(["caap", "mine"], ["mine"], model)
        assert [described["passes"] is None for described in picker.methods] == [False, True]
        picker.close()
    finally:
        del METHODS["mine"]
