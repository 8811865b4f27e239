"""`caap_interactions`: effects of pairs of patches that are not the sum of single effects."""

from collections.abc import Mapping
from typing import Any, Unpack

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from caap_lab.attribution.caap import caap
from caap_lab.engine.memory import GIB
from caap_lab.engine.plan import check_ready
from caap_lab.engine.scores import check_score, score_read, target_score
from caap_lab.engine.sets import PatchSets, SetRuns
from caap_lab.engine.settings import DEFAULT_MEMORY, CaapOptions, CaapSettings
from caap_lab.labels import named
from caap_lab.mechanisms.interaction_result import CaapInteractions, KeptLogits, quantity
from caap_lab.mechanisms.pair_sets import PairSets
from caap_lab.mechanisms.patch_choice import PatchChoice, check_patches, chosen_patches, is_top
from caap_lab.models.base import HookedModel, Images, check_kind
from caap_lab.models.batches import check_images
from caap_lab.models.explained import by_contrast, predicted_targets, several_explained
from caap_lab.models.running import runs_model
from caap_lab.models.targets import Target
from caap_lab.signatures import shows_options


@shows_options(caap)
@runs_model
@torch.no_grad()
def caap_interactions(
    model: HookedModel,
    images: Images,
    target: Any = None,
    *,
    patches: PatchChoice = "top10",
    progress: bool = True,
    **settings: Unpack[CaapOptions],
) -> CaapInteractions:
    """Interactions of pairs of patches, which CAAP's scores of single patches cannot show (its authors' stated limit).

    ```python
    pairs = cl.caap_interactions(model, "cat.jpg", "tabby")     # of the ten highest patches of CAAP's map
    pairs.strongest(5), pairs.shares(), pairs.partner_map(4, 7)
    pairs.for_target(cl.contrast("tabby", "lynx"))              # all classes come from the same runs
    cl.caap_interactions(model, "cat.jpg", "tabby", neighbourhood="none")     # patches that share nothing
    ```

    For patches i and j with neighbourhoods S_i and S_j,

        I_ij = f(S_i and S_j) - f(S_i) - f(S_j) + f(blank),

    where f(S) is the target's score with the inner activations of S inserted into the blank's run as in CAAP (arXiv
    2603.13652, eqs 2 and 3). Positive: each patch increases the effect of the other; negative: the two are redundant,
    or they share patches (see `CaapInteractions.beyond_overlap`). It is the second-order term of inclusion and
    exclusion, and the Shapley interaction of a game with these two players. Part of it is due to CAAP itself: while a
    patch is held at the source's activations, it receives nothing from the other. So in a linear model it vanishes if a
    single block is patched and everything else evolves (context "free"), or if all blocks are patched in the clamped
    context.

    The highest patches of a map are mostly neighbours. With CAAP's default 3 x 3 neighbourhoods they share patches,
    which alone makes I_ij negative; `beyond_overlap`, or neighbourhood="none", removes this effect.

    Cost per image: 1 + n + n (n - 1) / 2 patched runs for n patches (with "top10" every single patch as well), and one
    for the intersection of each two neighbourhoods that overlap. With a cached blank, a run costs only its live rows.
    The result records both, as `runs` and `forward_passes`: "top10" of a 14 x 14 grid is about 270 runs and 6 forward
    passes, "all" about 20,000 runs and 630 forward passes, or 160 with neighbourhood="none".

    Args:
        model: A Vision Transformer or CNN without hooks.
        images: One image, or several, which run one after the other.
        target: The target of f, one for all images or one per image: a class, `cl.contrast(a, b)`, a direction or a
            function of the logits; None for the model's own prediction. Several by name, {"name": target, ...}, become
            the last axis.
        patches: "top10" (or another number): the highest of the image's own CAAP map, for the first target; a list of
            cells (row, col); or "all". Several images need a list or "all".
        progress: Show a progress bar over runs.
        **settings: CAAP's settings, as `cl.caap` explains them; except `tail`, whose approximations share rows between
            the neighbourhoods of single patches.

    Returns:
        Interactions [image, patch, partner], as a matrix, as maps and as a table.

    Raises:
        InputError: an argument is invalid; raised before anything runs.
    """
    check_kind(model, "caap_interactions", ("vit", "cnn"))
    chosen = CaapSettings(**settings)
    PatchSets.of(model, chosen)  # raises InputError for invalid settings before anything runs
    check_ready(model)
    singles = check_images(images)
    check_patches(patches, model.grid, len(singles), least=2)
    targets: dict[str, Any] | None = None
    if target is not None:
        model, targets = several_explained(model, target, len(singles))
        for each in targets.values():
            for one in each:
                check_score(one, chosen.score)
    sets = PatchSets.of(model, chosen)
    runner = _Runner(sets, patches, len(singles), progress)
    names: list[str] = []
    with runner.bar:
        for number, image in enumerate(singles):
            batch = model.preprocess(image)
            runs = sets.of_image(batch, own=targets is None)
            if targets is None:
                assert runs.own is not None
                here = [predicted_targets(model, runs.own)[0]]
            else:
                here = [each[number] for each in targets.values()]
            names.append(here[0].name)
            runner.run(batch, runs, here)
    several = list(targets) if targets is not None and isinstance(target, Mapping) else None
    name = named(names) if several is None else ", ".join(several)
    read = score_read(chosen.score, model.n_classes)
    return runner.result(several, target=name, quantity=quantity(read, name), score=read, chosen=_written(patches))


def _written(patches: PatchChoice) -> str:
    return patches if isinstance(patches, str) else f"{len(patches)} chosen"


class _Runner:
    """Runs one image after another and collects the scores."""

    def __init__(self, sets: PatchSets, patches: PatchChoice, count: int, progress: bool) -> None:
        self.sets = sets
        self.patches = patches
        self.count = count
        self.bar = tqdm(desc="interactions", unit="run", disable=not progress)
        self.values: list[np.ndarray] = []
        self.logits: list[Tensor] | None = []
        self.pixels: list[np.ndarray] = []
        self.pairs: PairSets | None = None
        self.chosen: list[tuple[int, int]] = []
        self.written: dict[str, Any] = {}

    def run(self, batch: Float[Tensor, "1 3 height width"], runs: SetRuns, targets: list[Target]) -> None:
        """All sets of one image."""
        model, score = self.sets.model, self.sets.settings.score
        ranked = runs.all_logits(self.sets.neighbourhoods) if is_top(self.patches) else None
        if self.pairs is None:
            self._choose(runs, None if ranked is None else target_score(targets[0], ranked, score))
        pairs = self.pairs
        assert pairs is not None
        masks = pairs.masks
        values = np.zeros((len(masks), len(targets)))
        logits_of_all = (
            None if self.logits is None else torch.zeros(len(masks), self.columns, dtype=model.dtype, device="cpu")
        )

        def keep(places: np.ndarray, logits: Tensor) -> None:
            for number, target in enumerate(targets):
                values[places, number] = target_score(target, logits, score).double().cpu().numpy()
            if logits_of_all is not None:
                logits_of_all[places] = logits.cpu()

        if ranked is not None:
            keep(pairs.every, ranked)
            self.bar.update(len(np.unique(pairs.every)))
        rest = np.arange(len(masks)) if ranked is None else np.setdiff1d(np.arange(len(masks)), pairs.every)
        runs.logits(masks[rest], lambda part, logits: keep(rest[part], logits), self.bar.update)
        self.values.append(values)
        if self.logits is not None and logits_of_all is not None:
            self.logits.append(logits_of_all)
        self.pixels.append(model.preprocessing.to_rgb(batch[0]))

    def _choose(self, runs: SetRuns, scores: Float[Tensor, " patch"] | None) -> None:
        """Choose the patches from the first image, and prepare what depends on them."""
        grid, cols = self.sets.model.grid, self.sets.model.grid[1]

        def ranked() -> list[tuple[int, int]]:
            """All cells from the highest score of CAAP's map to the lowest; ties in reading order."""
            assert scores is not None
            return [(int(i) // cols, int(i) % cols) for i in scores.argsort(descending=True, stable=True)]

        self.chosen = chosen_patches(self.patches, grid, self.count, ranked)
        numbers = [row * cols + col for row, col in self.chosen]
        self.pairs = PairSets.of(self.sets.neighbourhoods, numbers, every=scores is not None)
        self.written = runs.written
        total = len(self.pairs.masks) * self.count
        self.bar.reset(total)
        self.bar.set_description(f"interactions: {self.passes * self.count:,.0f} forward passes")
        bound = (self.sets.settings.max_memory or DEFAULT_MEMORY) * GIB
        if total * self.columns * self.sets.model.dtype.itemsize > bound:
            self.logits = None

    @property
    def columns(self) -> int:
        """Number of columns of the logits: classes, then directions."""
        return self.sets.model.n_classes + len(self.sets.model.directions)

    @property
    def passes(self) -> float:
        """Cost of one image in forward passes, including its own run."""
        assert self.pairs is not None
        return self.sets.passes(self.pairs.masks) + 1

    def result(self, several: list[str] | None, **attributes: Any) -> CaapInteractions:
        """The result of all images."""
        assert self.pairs is not None
        model = self.sets.model
        kept = None
        if self.logits is not None:
            kept = KeptLogits(torch.stack(self.logits), model.class_names, by_contrast(model))
        return CaapInteractions.of(
            np.stack(self.values),
            several,
            sets=self.pairs,
            patches=self.chosen,
            grid=model.grid,
            pixels=np.stack(self.pixels),
            kept=kept,
            model=model.model_name,
            **{**self.written, **attributes},
            runs=len(self.pairs.masks),
            forward_passes=round(self.passes, 3),
        )
