"""`caap`: from an image to a map of what each patch's inner activations say for a class."""

from collections.abc import Sequence

from caap_lab.attribution.caap_maps import prepare_caap
from caap_lab.attribution.cost import Passes
from caap_lab.attribution.map import AttributionMap
from caap_lab.attribution.map_list import MapList
from caap_lab.attribution.method import Method, kinds_that_give
from caap_lab.engine.blanks import Blank
from caap_lab.engine.settings import DEFAULTS
from caap_lab.models.base import HookedModel, Images
from caap_lab.models.targets import TargetLike


def caap(
    model: HookedModel,
    images: Images,
    target: TargetLike | Sequence[TargetLike] | None = None,
    *,
    cutoff: int | float | None = None,
    start: int = 0,
    neighbourhood: str = "box1",
    blank: Blank = "white",
    direction: str = "insert",
    context: str | None = None,
    attention: str = "exact",
    tail: str = "exact",
    score: str = "logit",
    seed: int = 0,
    chunk_size: int | None = None,
    max_memory: float | None = None,
    batch_size: int = 8,
    progress: bool = True,
) -> AttributionMap | MapList:
    """Causal Attribution via Activation Patching (arXiv 2603.13652, eqs 2 and 3).

    ```python
    m = cl.caap(model, image)    # of the model's own prediction
    m.plot(), m.scores           # scores are [row, col]
    cl.caap(model, images, cl.contrast(4, 9), cutoff=5)    # several images: why 4 rather than 9
    cl.caap(model, image, direction="remove")    # what the image loses without the patch
    ```

    For every patch, the residual streams of the patch and its neighbours entering blocks start to cutoff - 1 are put
    into a blank image's run, and the target's score is read. Scores of all classes come from the same pass.

    This asks what a patch can do alone. `direction="remove"` asks what the image needs it for: the two runs change
    roles, the blank's streams are put into the image's run, and the score is what the target loses by that,
    f(image) - f(image without the patch and its neighbours).

    On a CNN (appendix B.3), patches are cells of `model.grid`, and the streams are the maps entering those blocks:
    block 0 reads the stem's output. All places that a cell touches count as the cell's.

    Args:
        model: A Vision Transformer or CNN; it must carry no hooks.
        images: One image, or several.
        target: What is explained: a class (index, WordNet id or word), `cl.contrast(a, b)`, `cl.direction(...)` or a
            function of the logits [row, class]; one for all images or one each. None is the model's own prediction.
            Where classes are text embeddings (CLIP), a class is explained by its contrast to all, see `cl.logit`.
        cutoff: How many blocks' inputs are patched, counted from block 0: a count from 0 (none) to n_layers, or a float
            from 0 to 1 as a share of the blocks. None is two thirds.
        start: First patched block; blocks before it are the blank's own.
        neighbourhood: "none", "cross1", "box1" (3 x 3, the paper's default), "diamond2", "box2", or your own, see
            `cl.register_neighbourhood`.
        blank: "white" (default), "black", "mean", "noise", "blurred_noise", "zero_activations" (on a CNN: of the maps
            entering block `start`), `cl.blanks.mean_activations(images)` (not on a CNN), or any image.
        direction: "insert" (default) puts patches of the image into the blank; "remove" puts patches of the blank into
            the image. With "remove", read "the image's" for "the blank's" in the options below, and the other way
            round; scores are differences, positive where the target loses.
        context: What the other tokens do. "clamped" (default): keys and values of blank tokens stay the blank run's.
            "free": they evolve and take up patched information (one forward pass per patch); the only one on a CNN, and
            the default there. "dropped": after the cutoff the patched tokens are the blank's again. "frozen": the
            patched tokens stay the source's in all blocks from `start`, so that `cutoff` has no effect.
        attention: "exact"; "cached" is E-CAAP (appendix B.1): blank attention from the blank's own queries, S_i's part
            subtracted; "cached_all" keeps one constant for all blank tokens. For "clamped".
        tail: "exact"; "shared" keeps only each patch's centre live after the cutoff, neighbouring groups lend theirs;
            "interpolated" runs a token in its own group and the outermost ones that hold it, and interpolates between
            them. For "clamped".
        score: "logit"; "prob" or "logprob", of the softmax; "sigmoid" or "logsigmoid", for a multi-label head. A head
            with one output reads its sigmoid where the softmax is asked for, and the map says so. A contrast's value is
            the difference of logits, and its probability that difference's sigmoid; one to the mean of all classes has
            its class's own softmax. Directions and functions have no probability.
        seed: Seed of the noise blanks.
        chunk_size: Patches scored at once; does not change results. By default as many as `max_memory` allows; on a
            CNN 32.
        max_memory: Bound in GiB on what a run needs besides the model, the blank's run and the result; 1 by default. It
            does not change results. The approximate tails need an image's patches at once, whatever the bound.
        batch_size: Images run at once, fewer if `max_memory` says so; does not change results.
        progress: Show a progress bar for more than one image.

    Returns:
        A map for one image (a path, PIL image, tensor [3, H, W] or [1, 3, H, W]); a list of maps for a list of images
        or a tensor of several.

    Raises:
        InputError: something given does not fit, before anything runs.
    """
    return CAAP.function(
        model,
        images,
        target,
        cutoff=cutoff,
        start=start,
        neighbourhood=neighbourhood,
        blank=blank,
        direction=direction,
        context=context,
        attention=attention,
        tail=tail,
        score=score,
        seed=seed,
        chunk_size=chunk_size,
        max_memory=max_memory,
        batch_size=batch_size,
        progress=progress,
    )


CAAP = Method(
    name="caap",
    family="activation patching",
    source="CAAP, arXiv 2603.13652",
    needs="forward passes",
    forwards=Passes(
        lambda size, options: (
            size.n_patches + 1
            if size.kind == "cnn" or options["context"] == "free"
            else 4.6
            if options.get("direction") == "remove"  # the image runs to its end
            else 4.2
        ),
        "about 5 (clamped); N (free, CNNs)",
    ),
    backwards=Passes.of(0, {}),
    class_specific=True,
    sign="level",
    reads="patched contexts",
    options={kind: DEFAULTS for kind in kinds_that_give("patched contexts")},
    prepare=prepare_caap,
)
