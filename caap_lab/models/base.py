"""Base class of all hooked models: image input, class names, fingerprint, and hooks with checked names."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast

import torch
from jaxtyping import Float
from timm.layers import PatchEmbed
from torch import Tensor, nn
from transformer_lens import HookedRootModule
from transformer_lens.hook_points import HookPoint

from caap_lab.digests.fingerprint import fingerprint, state_of
from caap_lab.digests.structure import is_replaced
from caap_lab.errors import InputError
from caap_lab.models.activation_cache import ActivationCache
from caap_lab.models.classes import ClassNames, as_class_names
from caap_lab.models.lock import locked
from caap_lab.models.names import Site, find_sites, unknown_name
from caap_lab.models.pass_meter import count_passes
from caap_lab.models.preprocess import Preprocessing, as_batch
from caap_lab.models.products import TF32, in_tf32, products
from caap_lab.models.quantised import check_format, why_no_gradient
from caap_lab.models.thread_watch import WATCH
from caap_lab.models.watched import is_watched
from caap_lab.models.width import Measured, output_width
from caap_lab.modules import modules

Images = Any
"""A path, a PIL image, a preprocessed tensor [3, H, W] or [B, 3, H, W], or a list of these."""
NamedHook = tuple[str | Callable[[str], bool], Callable[..., Any]]
"""A full hook name, or a filter of names, and a function called as function(activation, hook)."""


class HookedModel(HookedRootModule, ABC):
    """A timm model with TransformerLens hook points between its modules.

    `run_with_hooks`, `run_with_cache`, `hooks`, `add_hook` and `hook_dict` are those of TransformerLens.
    """

    kind: ClassVar[str]
    """The kind of model: "vit", "cnn", "mixer" or "black_box"."""
    readable: ClassVar[frozenset[str]] = frozenset({"pixels"})
    """What methods can read from models of this kind; a subset of `READS`."""
    preprocessing: Preprocessing
    model_name: str
    _fingerprint: tuple[bytes, str] | None = None
    _given_names: ClassNames | None = None
    """Class names set by the user; None for the default ones."""
    directions: tuple[Any, ...] = ()
    """Directions whose logits follow those of the classes; see `caap_lab.models.directions.with_directions`."""
    compiled: bool = False
    """Whether blocks run through torch.compile; see `caap_lab.models.compiling`."""
    _fingerprint_of: str = ""
    """The fingerprint of the model to which the directions were added."""

    @property
    @abstractmethod
    def n_classes(self) -> int:
        """Number of scores that the head outputs, measured by running it."""

    @property
    def class_names(self) -> ClassNames:
        """One name per score of the head; assign a list of names, or None for the defaults.

        The defaults are the ImageNet-1k names for a model with 1000 scores, otherwise "class 0", "class 1" and so on.

        Raises:
            InputError: the head was replaced after the names were set, and no longer matches them.
        """
        return as_class_names(self._given_names, self.n_classes)

    @class_names.setter
    def class_names(self, names: Sequence[str] | ClassNames | None) -> None:
        checked = as_class_names(names, self.n_classes)  # raises an error for a head that outputs no logits
        self._given_names = None if names is None else checked

    def _outputs(self, chain: Sequence[nn.Module], features: int, head: str = "head") -> int:
        """Number of class scores that the modules of a head output for `features` values; see `output_width`."""
        measured: dict[str, Measured[int]] = self.__dict__.setdefault("_head_widths", {})
        like = next(self.parameters())
        width = measured.setdefault(head, Measured()).of(chain, [features], lambda: output_width(chain, features, like))
        return width - len(self.directions)

    @property
    def classifiers(self) -> Sequence[nn.Module]:
        """The modules that compute the scores from features; empty if they are not known."""
        return ()

    def _through_hook_logits(self, logits: Float[Tensor, "batch columns"]) -> Float[Tensor, "batch columns"]:
        """Logits, with those of the classes passed through `hook_logits`; directions do not pass through it."""
        hook = cast(HookPoint, self.hook_logits)
        if not self.directions:
            return hook(logits)
        classes, others = logits.tensor_split([logits.shape[-1] - len(self.directions)], dim=-1)
        return torch.cat([hook(classes), others], dim=-1)

    @property
    @abstractmethod
    def n_layers(self) -> int:
        """Number of blocks."""

    @property
    @abstractmethod
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the maps that methods compute."""

    @property
    def image_size(self) -> tuple[int, int]:
        """Pixels of the input as (height, width)."""
        return self.preprocessing.image_size

    def at_image_size(self, image_size: int | tuple[int, int]) -> "HookedModel":
        """This model for images of another size, with its own hook points; this one is unchanged.

        Raises:
            InputError: the model takes images of one size only.
        """
        height, width = self.image_size
        raise InputError(
            f"{self.model_name} is a {KINDS[self.kind][0]}, which takes images of {height} x {width} pixels only."
            + (" Wrap its module again with image_size=..., if it runs on others." if self.kind == "black_box" else "")
        )

    @property
    def has_classifier(self) -> bool:
        """False for a model that ends with its features."""
        return True

    @property
    @abstractmethod
    def patch_size(self) -> tuple[int, int]:
        """Pixels of one cell of that grid as (height, width)."""

    def gives(self, what: str) -> bool:
        """True if methods can read `what`, one of `READS`, from the model."""
        return what in self.readable

    @property
    def why_no_gradient(self) -> str:
        """Why there is no gradient with respect to pixels, as a phrase for messages; empty if there is one."""
        return why_no_gradient(self.body)

    @property
    def channels(self) -> int:
        """Channels of the activations that CAM methods read."""
        return int(cast(Any, self.body).num_features)

    @property
    def choices(self) -> dict[str, Any]:
        """Settings of the wrapping that change maps but not logits, by name, as values that JSON can hold."""
        return {}

    @property
    def body(self) -> nn.Module:
        """The timm model that is wrapped."""
        return cast(nn.Module, getattr(self, self.kind))

    @property
    def containers(self) -> tuple[type[nn.Module], ...]:
        """Classes of modules that only call their own submodules, so that backward rules for those suffice."""
        return (nn.Sequential,)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """Number format of the weights."""
        return next(self.parameters()).dtype

    @property
    def number_format(self) -> str:
        """Name of the number format of computations: that of the weights, or "tf32"."""
        return TF32 if in_tf32(self.body) else str(self.dtype).removeprefix("torch.")

    @property
    def fingerprint(self) -> str:
        """Hash of weights and structure; stores and maps keep it to identify the model that made them.

        The structure is everything else that determines outputs: classes of the modules, their settings such as a
        LayerNorm's eps, and functions that replace their own. Hooks are not part of it.
        """
        if self._fingerprint_of:
            return self._fingerprint_of
        state = state_of(self)
        if self._fingerprint is None or self._fingerprint[0] != state:
            self._fingerprint = (state, fingerprint(self))
        return self._fingerprint[1]

    def find(self, name: str, layers: int | Iterable[int] | None = None) -> list[Site]:
        """Hook points for a full or short name; see `caap_lab.models.names.find_sites`."""
        return find_sites(self.hook_dict, self.n_layers, name, layers)

    def preprocess(self, images: Images) -> Float[Tensor, "batch 3 height width"]:
        """Images as the model's input tensor, on its device and in its dtype.

        Args:
            images: A path, a PIL image, a preprocessed tensor [3, H, W] or [B, 3, H, W], or a list of these.

        Raises:
            InputError: an image cannot be read, has another size, or holds NaN.
        """
        self._check_unchanged()
        check_format(self.body, self.dtype)
        batch = as_batch(images, self.preprocessing).to(self.device, self.dtype)
        # Tensors made in inference mode cannot be saved for a later backward pass.
        return batch.clone() if batch.is_inference() and not torch.is_inference_mode_enabled() else batch

    def _check_unchanged(self) -> None:
        """Raise InputError if the timm model was changed after wrapping in a way that this model would not follow.

        Raises:
            InputError: it was; the message names the change and what to do.
        """
        embed: Any = next((part for part in self.body.modules() if isinstance(part, PatchEmbed)), None)
        size = None if embed is None or embed.img_size is None else tuple(embed.img_size)
        if size not in (None, self.image_size):
            raise InputError(
                f"The model in {type(self).__name__} was set to images of {list(size or ())} pixels after it was "
                f"wrapped for {list(self.image_size)}. Wrap it again: cl.{type(self).__name__}(model.{self.kind})."
            )
        if is_watched(self.body):
            raise InputError(
                f"A torch hook on model.{self.kind} would not run: the hooked model runs its steps one by one. Remove "
                "it with handle.remove(), or use a hook point, such as hook_logits."
            )
        for name, module in self._stepped_through():
            for method in ("forward", "forward_features", "forward_head"):
                if is_replaced(module, method):
                    raise InputError(
                        f"{name}.{method} was replaced, and the hooked model would not run it: it runs its steps one "
                        "by one. Replace the forward of a module inside it, such as norm1, or use a hook point."
                    )

    def _stepped_through(self) -> Iterator[tuple[str, nn.Module]]:
        """Modules, by name, whose submodules this model calls directly instead of their forward."""
        yield f"model.{self.kind}", self.body

    def target(self, target: int | str) -> int:
        """Class index for an index, a WordNet id or a word such as "tabby".

        Raises:
            InputError: there is no such class, or the model has no classifier.
        """
        self._require_classifier()
        return self.class_names.find(target)

    def targets(self, targets: Any, count: int) -> list[int]:
        """Class indices for `count` images, from one target for all images or one per image."""
        self._require_classifier()
        return self.class_names.find_many(targets, count)

    def _require_classifier(self) -> None:
        if not self.has_classifier:
            head = "head=... (a linear head or text embeddings), or with " if self.kind == "vit" else ""
            raise InputError(
                f"{self.model_name} has no classifier, so it has no targets. Load it with {head}a checkpoint that has "
                "one."
            )

    if not TYPE_CHECKING:  # type checkers keep torch's own, which is narrower

        def __getattr__(self, name: str) -> Any:
            """Parameters and submodules, and whatever else Python does not find by itself.

            Raises:
                AttributeError: there is none; for what only Vision Transformers have, this is said.
            """
            try:
                return super().__getattr__(name)
            except AttributeError as error:
                vits = [kind for kind in HookedModel.__subclasses__() if kind.kind == "vit"]
                if self.kind == "vit" or name.startswith("_") or not any(hasattr(vit, name) for vit in vits):
                    raise
                plain = f"{error}: {works_on(f'model.{name}', ['vit'])}; this is a {KINDS[self.kind][0]}."
                raise AttributeError(plain, name=name, obj=self) from None

    # -- running: one thread at a time ---------------------------------------------------------------------------

    def __call__(self, *args: Any, **options: Any) -> Any:
        """Run the model; while another thread runs it or has hooks on it, wait."""
        first = next(self.parameters(), None)
        if first is None or first.device.type == "cpu":
            WATCH.look()
        with locked(self.body, self.model_name), self._in_its_format():
            outputs = super().__call__(*args, **options)
        if self.kind != "vit":  # a ViT's blocks count themselves, since many runs use only some of them
            count_passes(len(outputs))
        return outputs

    def _in_its_format(self) -> AbstractContextManager[None]:
        """Multiply in TF32 if this model does, otherwise with torch's settings."""
        return products(tf32=True) if in_tf32(self.body) else nullcontext()

    @contextmanager
    def hooks(
        self,
        fwd_hooks: Sequence[NamedHook] = (),
        bwd_hooks: Sequence[NamedHook] = (),
        reset_hooks_end: bool = True,
        clear_contexts: bool = False,
    ) -> Iterator[Any]:
        """TransformerLens's `hooks`; inside the context, other threads wait for the model."""
        given: Any = (list(fwd_hooks), list(bwd_hooks), reset_hooks_end, clear_contexts)
        with locked(self.body, self.model_name), self._in_its_format(), super().hooks(*given) as hooked:
            yield hooked

    # -- hooks: TransformerLens's own, with names checked ---------------------------------------------------------

    def has_hooks(self) -> bool:
        """True if there is a hook on any hook point or on any module of timm's model."""
        return any(map(is_watched, modules(self)))

    def add_hook(
        self,
        name: str | Callable[[str], bool],
        hook: Callable[..., Any],
        dir: Literal["fwd", "bwd"] = "fwd",
        is_permanent: bool = False,
        level: int | None = None,
        prepend: bool = False,
    ) -> None:
        """TransformerLens's `add_hook`; a name that does not exist, or a filter that matches none, is an error."""
        self._require(name)
        super().add_hook(name, hook, dir, is_permanent, level, prepend)

    def _enable_hook(self, name: str | Callable[[str], bool], hook: Callable[..., Any], dir: Any) -> None:
        self._require(name)
        super()._enable_hook(name, hook, dir)

    def get_caching_hooks(
        self,
        names_filter: Any = None,
        incl_bwd: bool = False,
        device: Any = None,
        remove_batch_dim: bool = False,
        cache: dict[str, Tensor] | None = None,
        pos_slice: Any = None,
    ) -> Any:
        """TransformerLens's `get_caching_hooks` for an `ActivationCache`; a name that does not exist is an error."""
        if names_filter is not None and not isinstance(names_filter, str) and not callable(names_filter):
            names_filter = list(names_filter)  # a generator would be empty the second time
            if not all(isinstance(name, str) for name in names_filter):
                raise InputError("names_filter takes one name, a list of names, or one function of a name.")
        if names_filter is not None:
            for name in names_filter if isinstance(names_filter, list) else [names_filter]:
                self._require(name)
        kept = ActivationCache(self.model_name, self.n_layers) if cache is None else cache
        return super().get_caching_hooks(names_filter, incl_bwd, device, remove_batch_dim, kept, pos_slice)

    def _require(self, name: str | Callable[[str], bool]) -> None:
        if isinstance(name, str):
            if name not in self.hook_dict:
                raise InputError(unknown_name(name, list(self.hook_dict)))
        elif not any(name(known) for known in self.hook_dict):
            raise InputError("The filter matches no hook point; all names are in model.hook_dict.")


KINDS = {
    "vit": ("Vision Transformer", "Vision Transformers"),
    "cnn": ("CNN", "CNNs"),
    "mixer": ("Mixer", "Mixers"),
    "black_box": ("black box", "black boxes"),
}
"""Name of each kind of model, singular and plural."""
READS = {
    "pixels": "scores of changed images, or their gradient by pixels",
    "feature maps": "activations on a grid of places, and their gradient",
    "residual stream": "the tokens that enter each block",
    "attention": "tokens that meet in attention and nowhere else",
    "patched contexts": "runs in which single patches are live, block by block",
}
"""What methods may read from a model, with a description."""


def check_kind(model: Any, what: str, kinds: Sequence[str] = ("vit",)) -> None:
    """Raise InputError unless `model` is a hooked model of one of some kinds.

    Raises:
        InputError: it is not; the message says what to do instead.
    """
    if not isinstance(model, HookedModel):
        raise InputError(f"{what} needs a hooked model, not {type(model).__name__}: wrap it, cl.wrap(model).")
    if model.kind not in kinds:
        raise InputError(f"{works_on(what, kinds)}; {model.model_name} is a {KINDS[model.kind][0]}.")


def works_on(what: str, kinds: Sequence[str]) -> str:
    """A sentence that says which kinds of models `what` works on, without the final full stop."""
    *most, last = [KINDS[kind][1] for kind in kinds]
    return f"{what} works on {' and '.join([', '.join(most), last] if most else [last])}"
