"""The model that is trained: timm's, with a linear layer on the feature that its own head reads."""

import json
from dataclasses import asdict, dataclass
from tempfile import TemporaryDirectory
from typing import Any

import timm
import torch
from jaxtyping import Float
from timm.models._hub import save_config_for_hf
from torch import Tensor, nn

from caap_lab.errors import InputError
from caap_lab.models.base import HookedModel
from caap_lab.models.load import BUNDLED, bundled_models, load_model
from caap_lab.models.preprocess import Preprocessing
from caap_lab.variant import parse_variant

_BUNDLED_AS = {"VisionTransformer": "vit_tiny_patch16_224", "ResNet": "resnet18"}
"""Names under which timm builds the bundled models, if all their arguments are given."""
_OPTIONS = ("checkpoint", "checkpoint_key", "image_size", "mean", "std")
"""Options of `load_model` that determine which model it is."""
_POOLS = {"token": "the class token", "avg": "the mean of the patches", "map": "pooling by attention"}


@dataclass(frozen=True)
class Backbone:
    """A timm model that timm can build again from its name and arguments."""

    body: Any
    """timm's model; training changes it."""
    text: str
    """Name and options of the loaded model."""
    preprocessing: Preprocessing
    weights: str
    """Hash of weights, structure and preprocessing before training."""

    @property
    def feature(self) -> str:
        """The feature that the classifier reads, as text."""
        return _POOLS.get(str(getattr(self.body, "global_pool", "")), "the pooled features")

    def features(self, pixels: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch d_feature"]:
        """The feature that the model's own head reads: pooled, and normalised if the model does that."""
        return self.body.forward_head(self.body.forward_features(pixels), pre_logits=True)

    def put_head(self, weight: Float[Tensor, "classes d_feature"], bias: Float[Tensor, " classes"]) -> None:
        """Replace the model's classifier by a linear one; both classifiers of a distilled DeiT become the same."""
        place = next(self.body.parameters())
        self.body.reset_classifier(len(weight))
        heads = self.body.get_classifier()
        for head in heads if isinstance(heads, tuple) else (heads,):
            linear = head if isinstance(head, nn.Linear) else head.fc
            linear.load_state_dict({"weight": weight, "bias": bias})
        self.body.to(place.device, place.dtype)


def open_backbone(model: str, device: torch.device) -> Backbone:
    """Load a model as the start of training.

    Args:
        model: As for `caap-lab bench`: a name or a folder, with options as NAME:key=value,key=value.
        device: Device of the model.

    Raises:
        InputError: the model cannot be loaded, an option has no meaning here, or timm cannot build the model by a name.
    """
    variant = parse_variant(model)
    for name in variant.options:
        if name not in _OPTIONS:
            raise InputError(f"{name}= of {model} has no meaning in training; use {', '.join(_OPTIONS)}, or none.")
    hooked = load_model(variant.name, **variant.options)
    assert isinstance(hooked, HookedModel)
    body = _bundled(variant.name, hooked.body) if variant.name in bundled_models() else hooked.body
    if not hasattr(body, "_model_args") or not hasattr(body, "get_classifier"):
        raise InputError(
            f"{model} comes from a folder of transformers or PEFT, and a trained classifier is saved as a timm model. "
            "Use timm's name of the same model, with checkpoint=FILE if its weights are not in the Hugging Face cache; "
            "`caap-lab models` lists the names."
        )
    _check_rebuilt(model, body)
    about = json.dumps(asdict(hooked.preprocessing), sort_keys=True)
    bare = Backbone(body.to(device), variant.text, hooked.preprocessing, f"{hooked.fingerprint} {about}")
    bare.body.eval()
    return bare


def _check_rebuilt(model: str, body: Any) -> None:
    """Raise InputError if timm would not rebuild the model from its description, before hours are spent on training."""
    with TemporaryDirectory() as folder:
        try:
            save_config_for_hf(body, f"{folder}/config.json")
            with torch.device("meta"):  # shapes only
                again: Any = timm.create_model(f"local-dir:{folder}", pretrained=False)
            built = {name: value.shape for name, value in again.state_dict().items()}
        except Exception as error:  # of any type: each of timm's classes checks its own arguments
            raise InputError(f"{model} cannot be saved as a timm model ({error}); use another model.") from error
    if built != {name: value.shape for name, value in body.state_dict().items()}:
        raise InputError(
            f"{model} was changed after timm had built it, so its name and arguments do not describe it; use "
            "the original model."
        )


def _bundled(name: str, own: Any) -> nn.Module:
    """A bundled model built by timm, so that it has a name and arguments in timm."""
    card = json.loads((BUNDLED / f"{name}.json").read_text(encoding="utf-8"))
    arguments = {**card["architecture_kwargs"], "num_classes": own.num_classes}
    embed = getattr(own, "patch_embed", None)
    if embed is not None:
        arguments["img_size"] = embed.img_size
    body: Any = timm.create_model(_BUNDLED_AS[card["architecture"]], pretrained=False, **arguments)
    body.load_state_dict(own.state_dict())
    # The other entries describe weights that differ from these.
    kept = ("architecture", "first_conv", "classifier", "fixed_input_size", "input_size")
    body.pretrained_cfg = {key: body.pretrained_cfg[key] for key in kept if key in body.pretrained_cfg}
    return body
