"""HookedMixer: a timm MLP-Mixer with TransformerLens hook points between the halves of its blocks."""

from collections.abc import Iterator, Sequence
from typing import Any, cast

from jaxtyping import Float
from timm.layers import GluMlp, Mlp, PatchEmbed
from timm.models.mlp_mixer import MixerBlock, MlpMixer
from torch import Tensor, nn
from transformer_lens.hook_points import HookPoint

from caap_lab.errors import InputError
from caap_lab.models.base import HookedModel, Images
from caap_lab.models.block import NormPoints
from caap_lab.models.checkpoint import model_label
from caap_lab.models.classes import ClassNames
from caap_lab.models.compiling import compiled
from caap_lab.models.preprocess import Preprocessing
from caap_lab.models.watched import is_watched
from caap_lab.models.width import passes_on


class MixerBlockPoints(nn.Module):
    """Hook points of one block, named as in a ViT: resid_mid is between token mixing and channel mixing."""

    def __init__(self) -> None:
        super().__init__()
        self.hook_resid_pre = HookPoint()
        self.ln1 = NormPoints()
        self.hook_resid_mid = HookPoint()
        self.ln2 = NormPoints()
        self.hook_resid_post = HookPoint()


class HookedMixer(HookedModel):
    """A timm MLP-Mixer (Tolstikhin et al. 2021, arXiv 2105.01601) for gradient methods and LibraGrad.

    ```python
    model = cl.wrap(timm.create_model("mixer_s32_224"))
    m = cl.attribute(model, torch.zeros(3, 224, 224), "input_x_gradient")
    ```

    Hook points of shape [batch, patch, d_model]: `hook_embed`, `blocks.{l}.hook_resid_pre`, `.ln1.hook_normalized`,
    `.hook_resid_mid`, `.ln2.hook_normalized`, `.hook_resid_post`, and `ln_final.hook_normalized`. `hook_pooled` is
    [batch, d_model] and `hook_logits` [batch, class]. The timm model is kept unchanged as `model.mixer`; logits are
    bit-equal to its own. All tokens are patches, row by row.
    """

    kind = "mixer"
    readable = HookedModel.readable | {"residual stream"}

    def __init__(
        self,
        mixer: nn.Module,
        *,
        preprocessing: Preprocessing | None = None,
        class_names: Sequence[str] | ClassNames | None = None,
        name: str | None = None,
    ) -> None:
        """Wrap a timm MLP-Mixer, trained or not; it is set to evaluation mode.

        Args:
            mixer: A timm MlpMixer of MixerBlocks: mixer_* and gmixer_*.
            preprocessing: How photos become tensors; by default the model's own timm configuration.
            class_names: One name per class; by default ImageNet-1k names for 1000 classes.
            name: What results call the model; by default timm's name.

        Raises:
            InputError: the architecture is not supported.
        """
        super().__init__()
        refuse_unsupported(mixer)
        self.mixer = mixer
        self.preprocessing = preprocessing or Preprocessing.from_timm(mixer)
        self.model_name = name or model_label(mixer)
        self.class_names = class_names
        self.hook_embed = HookPoint()
        self.blocks = nn.ModuleList(MixerBlockPoints() for _ in range(self.n_layers))
        self.ln_final = NormPoints()
        self.hook_pooled = HookPoint()
        self.hook_logits = HookPoint()
        self.setup()
        self.eval()

    @property
    def classifiers(self) -> Sequence[nn.Module]:
        """Timm's head."""
        return (cast(MlpMixer, self.mixer).head,)

    @property
    def n_classes(self) -> int:
        """Number of scores that the head outputs, measured by running it."""
        mixer = cast(MlpMixer, self.mixer)
        return self._outputs([mixer.head], mixer.embed_dim)

    @property
    def has_classifier(self) -> bool:
        """False for a model that ends with its features."""
        return not passes_on(cast(MlpMixer, self.mixer).head)

    @property
    def n_layers(self) -> int:
        """Number of mixer blocks."""
        return len(cast(MlpMixer, self.mixer).blocks)

    @property
    def containers(self) -> tuple[type[nn.Module], ...]:
        """Mixer blocks, their MLPs and the patch embedding."""
        return (*super().containers, MixerBlock, Mlp, GluMlp, PatchEmbed)

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        rows, cols = cast(Any, self.mixer).stem.grid_size
        return rows, cols

    @property
    def patch_size(self) -> tuple[int, int]:
        """Pixels of a patch as (height, width)."""
        height, width = cast(Any, self.mixer).stem.patch_size
        return height, width

    def forward(self, images: Images) -> Float[Tensor, "batch classes"]:
        """Logits [batch, class] of images.

        Raises:
            InputError: a torch hook is on a block, where it would not run.
        """
        mixer: Any = self.mixer
        resid = self.hook_embed(mixer.stem(self.preprocess(images)))
        for layer, (block, points) in enumerate(zip(mixer.blocks, self.blocks, strict=True)):
            if is_watched(mixer.blocks) or is_watched(block):
                raise InputError(
                    f"A torch hook on model.mixer.blocks or its block {layer} would not run: the hooked model runs "
                    f"its steps one by one. Use a hook point, such as blocks.{layer}.hook_resid_post, or hook a module "
                    "inside the block, such as mlp_tokens."
                )
            run = compiled(_run_block, block, points) if self.compiled else _run_block
            resid = run(block, cast(MixerBlockPoints, points), resid)
        normalized = self.ln_final.hook_normalized(mixer.norm(resid))
        return self._through_hook_logits(mixer.head(mixer.head_drop(self.hook_pooled(normalized.mean(dim=1)))))

    def _stepped_through(self) -> Iterator[tuple[str, nn.Module]]:
        yield from super()._stepped_through()
        yield from ((f"model.mixer.blocks[{layer}]", block) for layer, block in enumerate(cast(Any, self.mixer).blocks))

    def __repr__(self) -> str:
        """Name and sizes, instead of torch's list of all modules (that is `print(model.mixer)`)."""
        (rows, cols), width = self.grid, cast(MlpMixer, self.mixer).embed_dim
        return (
            f"HookedMixer({self.model_name}: {self.n_layers} blocks, width {width}, grid {rows} x {cols} of "
            f"{self.patch_size[0]} px patches, {self.n_classes} classes, {self.dtype}, {self.device})"
        )


def _run_block(
    block: Any, points: MixerBlockPoints, resid: Float[Tensor, "batch patch d_model"]
) -> Float[Tensor, "batch patch d_model"]:
    """The output of a timm MixerBlock, run in timm's order."""
    resid = points.hook_resid_pre(resid)
    normalized = points.ln1.hook_normalized(block.norm1(resid))
    mixed = block.mlp_tokens(normalized.transpose(1, 2)).transpose(1, 2)
    resid = points.hook_resid_mid(resid + block.drop_path(mixed))
    normalized = points.ln2.hook_normalized(block.norm2(resid))
    return points.hook_resid_post(resid + block.drop_path(block.mlp_channels(normalized)))


def refuse_unsupported(mixer: nn.Module) -> None:
    """Raise InputError for anything but timm's MlpMixer of MixerBlocks with LayerNorms.

    Raises:
        InputError: the model is not supported; the message says why.
    """
    kind = type(mixer).__name__
    if not isinstance(mixer, MlpMixer):
        raise InputError(f"HookedMixer wraps timm's MlpMixer, not {kind}.")
    for index, block in enumerate(mixer.blocks):
        if type(block) is not MixerBlock:
            raise InputError(
                f"Block {index} of this {kind} is a {type(block).__name__}; only the MixerBlocks of timm's mixer_* and "
                "gmixer_* models are supported, not gmlp_* and resmlp_*."
            )
        for part in (block.norm1, block.norm2, block.mlp_tokens, block.mlp_channels):
            if not isinstance(part, (nn.LayerNorm, Mlp, GluMlp)):
                raise InputError(f"Block {index} of this {kind} has a {type(part).__name__}, which is not supported.")
    if not isinstance(mixer.norm, nn.LayerNorm):
        raise InputError(f"This {kind} ends with a {type(mixer.norm).__name__}; only a LayerNorm is supported.")
    if mixer.global_pool != "avg":
        raise InputError(f"This {kind} has no pooling, so it has no class scores; build it with global_pool='avg'.")
