"""HookedViT: a timm Vision Transformer with TransformerLens hook points between timm's own modules."""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any, cast

from jaxtyping import Float
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn
from transformer_lens.hook_points import HookPoint

from caap_lab.errors import InputError
from caap_lab.models.base import HookedModel, Images, is_watched
from caap_lab.models.block import BlockPoints, NormPoints, run_block
from caap_lab.models.checkpoint import model_label
from caap_lab.models.classes import ClassNames
from caap_lab.models.heads import ClassAndMeanHead, Prompts, prompt_head
from caap_lab.models.names import activation_shape
from caap_lab.models.preprocess import Preprocessing
from caap_lab.models.spec import ViTSpec, read_spec
from caap_lab.models.width import passes_on

if TYPE_CHECKING:
    from caap_lab.activations.patch import Patch
    from caap_lab.activations.store import ActivationStore


class HookedViT(HookedModel):
    """A timm ViT that can be read and edited at every named activation.

    The timm model stays as it is, in `model.vit`: its modules are called in its own order, so logits are bit-equal to
    its own in the same attention mode. Fused attention is used except in blocks whose scores or pattern are being read
    or edited. `run_with_hooks`, `run_with_cache`, `hooks`, `add_hook` and `hook_dict` are TransformerLens's.
    """

    kind = "vit"

    def __init__(
        self,
        vit: nn.Module,
        *,
        head: nn.Module | None = None,
        preprocessing: Preprocessing | None = None,
        class_names: Sequence[str] | ClassNames | None = None,
        name: str | None = None,
    ) -> None:
        """Wrap a timm ViT, trained or not; it is put into evaluation mode.

        Args:
            vit: A timm VisionTransformer of a supported family.
            head: A head from `caap_lab.models.heads` to use instead of timm's own.
            preprocessing: How photos become tensors; by default the model's own timm configuration.
            class_names: One name a class; by default ImageNet-1k names for 1000 classes.
            name: What results call the model; by default timm's name.

        Raises:
            InputError: the architecture is not supported.
        """
        super().__init__()
        self.spec = spec = _spec_of(vit, head)
        assert isinstance(vit, VisionTransformer)
        self.vit = vit
        self.head = head
        self.preprocessing = preprocessing or Preprocessing.from_timm(vit)
        self.model_name = name or model_label(vit)
        self.class_names = class_names
        self.hook_embed = HookPoint()
        self.hook_full_embed = HookPoint()
        self.blocks = nn.ModuleList(BlockPoints(spec.gated_mlp) for _ in range(spec.n_layers))
        self.ln_final = NormPoints()
        self.hook_pooled = HookPoint()
        self.hook_logits = HookPoint()
        self.setup()
        self.eval()
        self.kept_runs: OrderedDict[tuple[Any, ...], Any] = OrderedDict()
        """Runs that are kept with the model and go with it: CAAP's blanks."""

    # -- facts ---------------------------------------------------------------------------------------------------

    @property
    def n_classes(self) -> int:
        """Number of scores that the head gives, measured by running it."""
        width = self.spec.d_model
        if isinstance(self.head, ClassAndMeanHead):
            return self._outputs([self.head], (self.class_layers + 1) * width)
        if self._is_distilled:
            own = self._outputs([self.vit.head], width)
            distilled = self._outputs([cast(nn.Module, self.vit.head_dist)], width, "head_dist")
            if own != distilled:
                raise InputError(
                    f"This distilled model's head gives {own} scores and its head_dist {distilled}, and the model's "
                    "are their mean: replace both with heads for the same classes."
                )
            return own
        return self._outputs([self.vit.fc_norm, self.vit.head, *([] if self.head is None else [self.head])], width)

    @property
    def has_classifier(self) -> bool:
        """False for a model that ends with its features."""
        return self.head is not None or not passes_on(self.vit.head)

    @property
    def class_layers(self) -> int:
        """How many of the last blocks' class tokens the head reads (4 for one DINOv2 head, else 1)."""
        return self.head.class_layers if isinstance(self.head, ClassAndMeanHead) else 1

    def reads_class_token(self, layer: int) -> bool:
        """True if the head reads the class token leaving this block, besides the last block's."""
        return self.spec.n_layers - self.class_layers <= layer < self.spec.n_layers - 1

    @property
    def n_layers(self) -> int:
        """Number of transformer blocks."""
        return self.spec.n_layers

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        return self.spec.grid

    @property
    def patch_size(self) -> tuple[int, int]:
        """Pixels of a patch as (height, width)."""
        return self.spec.patch_size

    def activation_shape(self, name: str) -> tuple[int, ...]:
        """Shape of one image's activation at a hook point (full or short name), without the batch axis."""
        d_pooled: tuple[int, ...] = (self.spec.d_model,)
        if isinstance(self.head, ClassAndMeanHead):
            d_pooled = ((self.class_layers + 1) * self.spec.d_model,)
        elif self._is_distilled:
            d_pooled = (2, self.spec.d_model)
        return activation_shape(self.spec, self.find(name)[0].short, d_pooled, self.n_classes)

    def with_prompts(self, prompts: Prompts, *, logit_scale: float = 100.0) -> "HookedViT":
        """This CLIP image tower with prompts as its classes, for `target="a photo of a cat"` in every method.

        A class's score is `logit_scale` times the cosine of the image embedding with the prompt's text embedding. The
        new model shares this one's weights and has hook points of its own; this one stays as it is.

        Args:
            prompts: Text embeddings [width] of the same CLIP model's text encoder, by prompt; they are normalised.
            logit_scale: CLIP's learned temperature, about 100.

        Raises:
            InputError: no prompts, or an embedding of another width.
        """
        model = HookedViT(
            self.vit,
            head=prompt_head(prompts, self.vit, logit_scale),
            preprocessing=self.preprocessing,
            class_names=tuple(prompts),
            name=self.model_name,
        )
        return model.to(self.device, self.dtype)

    def __repr__(self) -> str:
        """Name and sizes, instead of torch's list of all modules (that is `print(model.vit)`)."""
        s = self.spec
        prefix = ", ".join(s.prefix) or "none"
        return (
            f"HookedViT({self.model_name}: {s.n_layers} layers, {s.n_heads} heads, width {s.d_model}, "
            f"grid {s.grid[0]} x {s.grid[1]} of {s.patch_size[0]} px patches, prefix tokens: {prefix}, "
            f"pool {s.pool}, {self.n_classes} classes, {self.dtype}, {self.device})"
        )

    # -- forward -------------------------------------------------------------------------------------------------

    def forward(
        self,
        images: Images,
        *,
        start_at_layer: int | None = None,
        stop_at_layer: int | None = None,
        class_tokens: Sequence[Tensor] = (),
    ) -> Tensor:
        """Logits [batch, class]; or a part of the way, as in TransformerLens.

        Args:
            images: Images, or with `start_at_layer` the residual stream [batch, token, d_model] entering that block.
            start_at_layer: First block to run; n_layers runs the head only.
            stop_at_layer: Stop before this block and return the residual stream entering it.
            class_tokens: With `start_at_layer`, class tokens [batch, d_model] that blocks before it put out, where the
                head reads them (DINOv2 head on four blocks).
        """
        n_layers = self.spec.n_layers
        stop = n_layers if stop_at_layer is None else stop_at_layer
        start = 0 if start_at_layer is None else start_at_layer
        if not 0 <= start <= stop <= n_layers:
            raise InputError(
                f"start_at_layer={start_at_layer}, stop_at_layer={stop_at_layer}: need 0 <= start <= stop <= {n_layers}"
            )
        resid = self.embed(self.preprocess(images)) if start_at_layer is None else images
        collected = list(class_tokens)
        for layer in range(start, stop):
            resid = self.run_block(layer, resid)
            if self.reads_class_token(layer):
                collected.append(resid[:, 0])
        return resid if stop_at_layer is not None else self.unembed(resid, collected)

    def embed(self, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch token d_model"]:
        """Residual stream entering block 0."""
        vit = self.vit
        patches = vit.patch_embed(images)
        # A model built for dynamic sizes keeps the grid as axes until positions are added.
        shape = patches.shape
        patches = self.hook_embed(patches.reshape(shape[0], -1, shape[-1])).reshape(shape)
        return vit.norm_pre(vit.patch_drop(self.hook_full_embed(vit._pos_embed(patches))))

    def run_block(self, layer: int, resid: Tensor) -> Tensor:
        """One block, through its hook points.

        Raises:
            InputError: a torch hook sits on the block, its attention or its MLP, where it would not be run.
        """
        for name, module in self._parts(layer):
            if is_watched(module):
                raise InputError(
                    f"A torch hook on {name} would not run: the hooked model takes its steps one by one. "
                    f"Use a hook point, such as blocks.{layer}.hook_resid_post, .hook_attn_out or .hook_mlp_out, or "
                    "hook a module inside it, such as norm1."
                )
        return run_block(self.block(layer), cast(BlockPoints, self.blocks[layer]), resid)

    def block(self, layer: int) -> Block:
        """The timm block of a layer."""
        return cast(Block, self.vit.blocks[layer])

    def unembed(
        self, resid: Float[Tensor, "batch token d_model"], class_tokens: Sequence[Tensor] = ()
    ) -> Float[Tensor, "batch classes"]:
        """Logits from the residual stream leaving the last block."""
        vit = self.vit
        normalized = self.ln_final.hook_normalized(vit.norm(resid))
        if isinstance(self.head, ClassAndMeanHead):
            if len(class_tokens) != self.class_layers - 1:
                raise InputError(f"This head reads {self.class_layers - 1} class tokens of earlier blocks as well.")
            earlier = [vit.norm(token) for token in class_tokens]
            return self.hook_logits(
                self.head(self.hook_pooled(self.head.pool(normalized, earlier, self.spec.n_prefix)))
            )
        if self._is_distilled:
            pooled = self.hook_pooled(normalized[:, :2])
            logits = vit.head(vit.head_drop(pooled[:, 0])) + cast(nn.Module, vit.head_dist)(vit.head_drop(pooled[:, 1]))
            return self.hook_logits(logits / 2)
        features = vit.head(vit.head_drop(vit.fc_norm(self.hook_pooled(vit.pool(normalized)))))
        return self.hook_logits(features if self.head is None else self.head(features))

    def _check_unchanged(self) -> None:
        super()._check_unchanged()
        now, then = _spec_of(self.vit, self.head, self.spec.d_mlp), self.spec
        if now != then:
            changed = [field.name for field in fields(then) if getattr(now, field.name) != getattr(then, field.name)]
            was, found = (getattr(spec, changed[0]) for spec in (then, now))
            raise InputError(
                f"The model in HookedViT was changed after it was wrapped: {changed[0]} was {was} and is {found}. Wrap "
                "it again: cl.HookedViT(model.vit)."
            )

    def _stepped_through(self) -> Iterator[tuple[str, nn.Module]]:
        yield from super()._stepped_through()
        for layer in range(self.n_layers):
            yield from self._parts(layer)

    def _parts(self, layer: int) -> list[tuple[str, nn.Module]]:
        """A block, its attention and its MLP by name, whose steps `run_block` takes one by one."""
        block, name = self.block(layer), f"model.vit.blocks[{layer}]"
        return [(name, block), (f"{name}.attn", block.attn), (f"{name}.mlp", block.mlp)]

    @property
    def _is_distilled(self) -> bool:
        return isinstance(self.vit, VisionTransformerDistilled) and self.head is None

    # -- recording and patching ----------------------------------------------------------------------------------

    def record(self, images: Images, names: str | Sequence[str], **options: Any) -> "ActivationStore":
        """Run images and keep the named activations; see `caap_lab.activations.record`."""
        from caap_lab.activations.record import record

        return record(self, images, names, **options)

    def run_patched(self, images: Images, patches: "Patch | Sequence[Patch]") -> Float[Tensor, "batch classes"]:
        """Logits of images with activations replaced; see `caap_lab.activations.run_patched`."""
        from caap_lab.activations.run_patched import run_patched

        return run_patched(self, images, patches)


def _spec_of(vit: nn.Module, head: nn.Module | None, d_mlp: int | None = None) -> ViTSpec:
    """The spec of a timm ViT with a head in the place of its own."""
    spec = read_spec(vit, d_mlp)
    if isinstance(head, ClassAndMeanHead):
        return replace(spec, pool="cls+mean", read_tokens=(0, *range(spec.n_prefix, spec.n_tokens)))
    return spec
