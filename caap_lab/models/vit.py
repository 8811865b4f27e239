"""HookedViT: a timm Vision Transformer with TransformerLens hook points between timm's own modules."""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformer_lens.hook_points import HookPoint

from caap_lab.errors import InputError
from caap_lab.labels import counted
from caap_lab.models.architecture import Architecture
from caap_lab.models.attention_pool import run_pooling
from caap_lab.models.base import READS, HookedModel, Images
from caap_lab.models.block import AttentionPoints, BlockPoints, NormPoints, Tokens, after_heads, run_block
from caap_lab.models.checkpoint import model_label
from caap_lab.models.classes import ClassNames
from caap_lab.models.compiling import compiled
from caap_lab.models.extra_tokens import extended, refuse_extra_tokens
from caap_lab.models.families import architecture_of
from caap_lab.models.heads import ClassAndMeanHead, Prompts, prompt_head
from caap_lab.models.image_sizes import as_image_size, check_whole_patches, resized
from caap_lab.models.moved_neurons import some_rows
from caap_lab.models.names import activation_shape
from caap_lab.models.pass_meter import count_passes
from caap_lab.models.preprocess import Preprocessing
from caap_lab.models.readout import Readout
from caap_lab.models.spec import ViTSpec
from caap_lab.models.transformer_lens_calls import no_attribute
from caap_lab.models.watched import is_watched

if TYPE_CHECKING:
    from caap_lab.activations.patch import Patch
    from caap_lab.activations.store import ActivationStore

Stream = Float[Tensor, "batch token d_model"]
"""The residual stream."""
ClassTokens = Sequence[Float[Tensor, "batch d_model"]]
"""Class tokens leaving blocks before the last, earliest first, if the head reads them."""


class HookedViT(HookedModel):
    """A timm Vision Transformer whose activations can be read and edited at named hook points.

    ```python
    model = cl.load_model("demo")    # or cl.wrap(module)
    logits, cache = model.run_with_cache(model.preprocess(images))
    cache["pattern", 3], cache["resid_pre", -1]
    model.record(images, ["q", "resid_post"]), model.run_patched(images, cl.Patch("z", 3, heads=0))
    ```

    The timm model is kept unchanged as `model.vit`: its modules are called in the same order, so logits are bit-equal
    to its own in the same attention mode. Fused attention is used except in blocks whose scores or pattern are read or
    edited. `run_with_hooks`, `run_with_cache`, `hooks`, `add_hook` and `hook_dict` are those of TransformerLens.
    """

    kind = "vit"
    readable = frozenset(READS)
    vit: Any
    """timm's model."""

    def __init__(
        self,
        vit: nn.Module,
        *,
        head: nn.Module | None = None,
        preprocessing: Preprocessing | None = None,
        class_names: Sequence[str] | ClassNames | None = None,
        name: str | None = None,
    ) -> None:
        """Wrap a timm ViT, trained or not; it is set to evaluation mode.

        Args:
            vit: A timm VisionTransformer of a supported family.
            head: A head from `caap_lab.models.heads` to use instead of timm's own.
            preprocessing: How photos become tensors; by default the model's own timm configuration.
            class_names: One name per class; by default ImageNet-1k names for 1000 classes.
            name: What results call the model; by default timm's name.

        Raises:
            InputError: the architecture is not supported.
        """
        super().__init__()
        self._architecture = architecture_of(vit)
        self.vit = vit
        self.head = head
        self.spec = spec = self._read_spec()
        self.preprocessing = preprocessing or Preprocessing.from_timm(vit)
        self.model_name = name or model_label(vit)
        self.class_names = class_names
        self.hook_embed = HookPoint()
        self.hook_full_embed = HookPoint()
        self.blocks = nn.ModuleList(BlockPoints(spec.gated_mlp) for _ in range(spec.n_layers))
        self.ln_final = NormPoints()
        self.attn_pool = None if self.readout.attention is None else AttentionPoints()
        self.hook_pooled = HookPoint()
        self.hook_logits = HookPoint()
        self.setup()
        self.eval()
        self.kept_runs: OrderedDict[tuple[Any, ...], Any] = OrderedDict()
        """Runs cached with the model: CAAP's blanks."""

    # -- facts ---------------------------------------------------------------------------------------------------

    @property
    def architecture(self) -> Architecture:
        """The steps of timm's model, through the common interface of all families."""
        if self._architecture.vit is not self.vit:
            self._architecture = architecture_of(self.vit)
        return self._architecture

    @property
    def readout(self) -> Readout:
        """The head that computes class scores: timm's own, `head`, or `head` on timm's features."""
        return self.architecture.readout(self.head, self.spec.n_prefix)

    @property
    def containers(self) -> tuple[type[nn.Module], ...]:
        """Blocks, attention and the like, as the family names them."""
        return (*super().containers, *self.architecture.containers, ClassAndMeanHead)

    def _read_spec(self, d_mlp: int | None = None) -> ViTSpec:
        spec = self.architecture.spec(d_mlp)
        return self.architecture.readout(self.head, spec.n_prefix).adapt(spec)

    @property
    def channels(self) -> int:
        """Width of the residual stream, which CAM methods read."""
        return self.spec.d_model

    @property
    def n_classes(self) -> int:
        """Number of scores that the head outputs, measured by running it."""
        return self.readout.n_classes(self.spec.d_model, self._outputs)

    @property
    def has_classifier(self) -> bool:
        """False for a model that ends with its features."""
        return self.readout.has_classifier

    @property
    def classifiers(self) -> Sequence[nn.Module]:
        """The last modules of the head; two for a distilled DeiT."""
        return self.readout.classifiers

    @property
    def class_layers(self) -> int:
        """Number of last blocks whose class tokens the head reads (4 for one DINOv2 head, otherwise 1)."""
        return self.readout.class_layers

    def reads_class_token(self, layer: int) -> bool:
        """True if the head reads the class token leaving this block, in addition to the last block's."""
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
        """Shape of the activation at a hook point (full or short name) for one image, without the batch axis."""
        short = self.find(name)[0].short
        pooling, point = self.readout.attention, short.removeprefix("attn_pool.")
        if pooling is not None and point != short:
            return pooling.shape(point, len(self.spec.read_tokens))
        return activation_shape(self.spec, short, self.readout.pooled_shape(self.spec.d_model), self.n_classes)

    def at_image_size(self, image_size: int | tuple[int, int]) -> "HookedViT":
        """This model for images of another size, with its own hook points; this one is unchanged.

        ```python
        fine = model.at_image_size(448)        # a model for 224 pixels: 4 times the patches
        wide = model.at_image_size((224, 448))
        ```

        Both share all weights except positions, which timm resamples (`set_input_size`), as in the forward pass of a
        model with dynamic_img_size. Resampling twice loses detail: make every size from the original model. Nothing is
        trained; the page "Image sizes" of the documentation shows the effect on accuracy.

        Args:
            image_size: Pixels, or (height, width); a whole number of patches.

        Raises:
            InputError: the size is not a whole number of patches, or positions cannot be resampled.
        """
        refuse_extra_tokens(self.vit, "Another image size")
        size = as_image_size(image_size)
        check_whole_patches(size, self.patch_size, self.model_name)
        return self.rewrapped(resized(self.vit, size), preprocessing=replace(self.preprocessing, image_size=size))

    def with_extra_tokens(self, count: int = 1) -> "HookedViT":
        """This model with more tokens than it was trained with, as test-time registers (arXiv 2506.08010).

        They follow the other prefix tokens and are zeros without positions (relative and rotary positions treat them as
        class tokens); heads do not read them, except for attention pooling over all tokens. Hook points, methods and
        CAAP treat them as registers. The new model shares this one's weights and has its own hook points; this one is
        unchanged.

        Args:
            count: Number of new tokens.

        Raises:
            InputError: the head adds positions to all tokens, and has none for the new ones.
        """
        return self.rewrapped(extended(self.vit, count), name=f"{self.model_name} + {counted(count, 'token')}")

    def rewrapped(self, vit: nn.Module, **changes: Any) -> "HookedViT":
        """Another timm model with this model's head, preprocessing, class names and name, except for `changes`."""
        own = {"head": self.head, "preprocessing": self.preprocessing, "class_names": self._given_names}
        model = HookedViT(vit, **{"name": self.model_name, **own, **changes})
        model.compiled = self.compiled
        return model

    def with_prompts(self, prompts: Prompts, *, logit_scale: float = 100.0) -> "HookedViT":
        """This CLIP image tower with prompts as its classes, for `target="a photo of a cat"` in every method.

        The score of a class is `logit_scale` times the cosine similarity of image and text embedding. The new model
        shares this one's weights and has its own hook points; this one is unchanged.

        Args:
            prompts: Text embeddings [width] from the same CLIP model's text encoder, by prompt; they are normalised.
            logit_scale: CLIP's learned temperature, about 100.

        Raises:
            InputError: there are no prompts, or an embedding has the wrong width.
        """
        head = prompt_head(prompts, self.vit, logit_scale)
        return self.rewrapped(self.vit, head=head, class_names=tuple(prompts)).to(self.device, self.dtype)

    def __getattr__(self, name: str) -> Any:
        """Parameters and submodules, and whatever else Python does not find by itself.

        Raises:
            AttributeError: there is none; for a name of TransformerLens's models, with what to use instead.
        """
        try:
            return super().__getattr__(name)
        except AttributeError as error:
            raise no_attribute(self, name, error) from None

    def __repr__(self) -> str:
        """Name and sizes, instead of torch's list of all modules (that is `print(model.vit)`)."""
        s = self.spec
        prefix = ", ".join(s.prefix) or "none"
        return (
            f"HookedViT({self.model_name}: {s.n_layers} layers, {s.n_heads} heads, width {s.d_model}, "
            f"grid {s.grid[0]} x {s.grid[1]} of {s.patch_size[0]} px patches; prefix tokens: {prefix}; "
            f"pooling: {s.pool}; {self.n_classes} classes; {self.dtype}, {self.device})"
        )

    # -- forward -------------------------------------------------------------------------------------------------

    def forward(
        self,
        images: Images,
        *,
        start_at_layer: int | None = None,
        stop_at_layer: int | None = None,
        class_tokens: ClassTokens = (),
        tokens: Tokens = None,
    ) -> Float[Tensor, "batch classes"] | Stream:
        """Logits [batch, class], or the result of some of the blocks, as in TransformerLens.

        Args:
            images: Images, or with `start_at_layer` the residual stream [batch, token, d_model] entering that block.
            start_at_layer: First block to run; with n_layers only the head runs.
            stop_at_layer: Stop before this block and return the residual stream entering it.
            class_tokens: With `start_at_layer`, class tokens [batch, d_model] leaving the blocks before it, if the head
                reads them (DINOv2 head on four blocks).
            tokens: With `start_at_layer`, the token numbers in the stream, [token] or [batch, token], if it does not
                hold all tokens: attention may depend on positions. All prefix tokens must be included, first.
        """
        n_layers = self.spec.n_layers
        stop = n_layers if stop_at_layer is None else stop_at_layer
        start = 0 if start_at_layer is None else start_at_layer
        if not 0 <= start <= stop <= n_layers:
            raise InputError(
                f"start_at_layer={start_at_layer}, stop_at_layer={stop_at_layer}: need 0 <= start <= stop <= {n_layers}"
            )
        resid = self.embed(self.preprocess(images)) if start_at_layer is None else images
        step = None if tokens is None else lambda layer, x: self.run_block(layer, x, tokens)
        resid, collected = self.run_blocks(resid, range(start, stop), class_tokens, step=step)
        return resid if stop_at_layer is not None else self.unembed(resid, collected)

    def embed(self, images: Float[Tensor, "batch 3 height width"]) -> Stream:
        """Residual stream entering block 0."""
        architecture = self.architecture
        patches = self.hook_embed(architecture.read_patches(images))
        return architecture.before_blocks(self.hook_full_embed(architecture.add_positions(patches)))

    def run_blocks(
        self,
        x: Tensor,
        layers: Iterable[int],
        class_tokens: ClassTokens = (),
        *,
        step: Callable[[int, Tensor], Tensor] | None = None,
        class_token: Callable[[Tensor], Tensor] = lambda x: x[:, 0],
    ) -> tuple[Tensor, list[Float[Tensor, "batch d_model"]]]:
        """The stream leaving the last of some blocks, and all class tokens of earlier blocks that the head reads.

        Args:
            x: The stream entering the first of them.
            layers: The blocks, in order.
            class_tokens: Class tokens leaving the blocks before them.
            step: Function that runs a block on the stream entering it; by default `run_block`.
            class_token: Function that takes the class tokens from the stream leaving a block.
        """
        collected = list(class_tokens)
        for layer in layers:
            x = (step or self.run_block)(layer, x)
            if self.reads_class_token(layer):
                collected.append(class_token(x))
        return x, collected

    def run_block(self, layer: int, resid: Stream, tokens: Tokens = None) -> Stream:
        """The stream leaving one block, run through its hook points.

        Args:
            layer: The block.
            resid: The residual stream entering it.
            tokens: The token numbers in that stream, if it does not hold all tokens; see `forward`.

        Raises:
            InputError: a torch hook is on the block, its attention or its MLP, where it would not run.
        """
        for name, module in [("model.vit.blocks", cast(Any, self.vit).blocks), *self._parts(layer)]:
            if is_watched(module):
                raise InputError(
                    f"A torch hook on {name} would not run: the hooked model runs its steps one by one. "
                    f"Use a hook point, such as blocks.{layer}.hook_resid_post, .hook_attn_out or .hook_mlp_out, or "
                    "hook a module inside it, such as norm1."
                )
        self._count(resid)
        block, points = self.architecture.block(layer), cast(BlockPoints, self.blocks[layer])
        if self.compiled and tokens is None:
            run = compiled(run_block, self.block(layer), points)
            return run(replace(block, attention=block.attention.fixed()), points, resid.contiguous())
        return run_block(block, points, resid, tokens)

    def after_heads(
        self, layer: int, resid: Stream, normalized: Stream, z: Float[Tensor, "batch head token d_head"]
    ) -> Stream:
        """The rest of a block after its heads, for any rows; see `caap_lab.models.block.after_heads`."""
        self._count(resid)
        block, points = self.architecture.block(layer), cast(BlockPoints, self.blocks[layer])
        with some_rows():
            if not self.compiled:
                return after_heads(block, points, resid, normalized, z)
            # Rows do not depend on each other here. As rows of one image, only their number differs between calls.
            flat = [t.flatten(0, 1)[None].contiguous() for t in (resid, normalized, z.transpose(1, 2))]
            run = compiled(after_heads, self.block(layer), points)
            return run(block, points, flat[0], flat[1], flat[2].transpose(1, 2))[0].unflatten(0, resid.shape[:2])

    def _count(self, resid: Stream) -> None:
        """Count a block's part of a forward pass, in proportion to the number of tokens."""
        batch, tokens = resid.shape[:2]
        count_passes(batch * tokens / (self.spec.n_tokens * self.spec.n_layers))

    def block(self, layer: int) -> nn.Module:
        """The timm block of a layer."""
        return cast(nn.Module, self.vit.blocks[layer])

    def unembed(self, resid: Stream, class_tokens: ClassTokens = ()) -> Float[Tensor, "batch classes"]:
        """Logits from the residual stream leaving the last block."""
        architecture, readout = self.architecture, self.readout
        normalized = self.ln_final.hook_normalized(architecture.final_norm(resid))
        earlier = [architecture.final_norm(token) for token in class_tokens]
        attention, points = readout.attention, self.attn_pool
        if attention is not None and points is not None and any(map(is_watched, points.children())):
            pooled = run_pooling(attention, points, normalized)
        else:
            pooled = readout.pool(normalized, earlier)
        return self._through_hook_logits(readout.scores(self.hook_pooled(pooled)))

    def _check_unchanged(self) -> None:
        super()._check_unchanged()
        now, then = self._read_spec(self.spec.d_mlp), self.spec
        if now != then:
            changed = [field.name for field in fields(then) if getattr(now, field.name) != getattr(then, field.name)]
            before, after = (getattr(spec, changed[0]) for spec in (then, now))
            raise InputError(
                f"The model in HookedViT was changed after it was wrapped: {changed[0]} was {before} and is {after}. "
                "Wrap it again: cl.HookedViT(model.vit)."
            )

    def _stepped_through(self) -> Iterator[tuple[str, nn.Module]]:
        yield from super()._stepped_through()
        still_there = len(getattr(self.vit, "blocks", ()))  # blocks may have been removed, or the model replaced
        for layer in range(min(self.n_layers, still_there)):
            yield from self._parts(layer)

    def _parts(self, layer: int) -> list[tuple[str, nn.Module]]:
        """A block, its attention and its MLP, whose steps `run_block` runs one by one, by name."""
        try:
            parts = self.architecture.block(layer).stepped_through
        except AttributeError as error:
            kind = type(self.vit.blocks[layer]).__name__
            raise InputError(
                f"model.vit.blocks[{layer}] is now of the class {kind}, whose steps are not known: {error}. Put a "
                "block back, or remove a block's effect with cl.ablate_layers."
            ) from None
        return [(f"model.vit.blocks[{layer}]{name}", module) for name, module in parts]

    # -- recording and patching: the only place where models import a package that builds on them -----------------

    def record(
        self,
        images: Images,
        names: str | Sequence[str],
        *,
        layers: int | Iterable[int] | None = None,
        device: str | torch.device = "cpu",
        dtype: str | torch.dtype | None = None,
        batch_size: int = 32,
        out: str | Path | None = None,
        progress: bool = True,
    ) -> "ActivationStore":
        """Run images and keep the named activations; see `caap_lab.activations.record.record`.

        ```python
        store = model.record(images, ["resid_pre", "pattern"], layers=[0, 3])
        store["pattern", 3]    # [image, head, query, key]
        ```
        """
        from caap_lab.activations.record import record

        return record(
            self,
            images,
            names,
            layers=layers,
            device=device,
            dtype=dtype,
            batch_size=batch_size,
            out=out,
            progress=progress,
        )

    def run_patched(self, images: Images, patches: "Patch | Sequence[Patch]") -> Float[Tensor, "batch classes"]:
        """Logits of images with activations replaced; see `caap_lab.activations.run_patched.run_patched`.

        ```python
        logits = model.run_patched(images, cl.Patch("mlp_out", 3))    # an MLP that adds nothing
        ```
        """
        from caap_lab.activations.run_patched import run_patched

        return run_patched(self, images, patches)
