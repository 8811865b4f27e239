"""Do maps depend on what the model has learned? They are made again while its weights are shuffled, group by group."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from tqdm.auto import tqdm

from caap_lab.activations.labelled import LabelledResult, labelled_dataset
from caap_lab.attribution.map import AttributionMap
from caap_lab.checks import check_choice, check_count, check_seed
from caap_lab.errors import InputError
from caap_lab.labels import counted
from caap_lab.metrics.changed_images import target_scores, value_name
from caap_lab.metrics.method_runs import MethodRuns, rank_correlation
from caap_lab.models.base import KINDS, HookedModel, Images, check_kind
from caap_lab.models.explained import explained
from caap_lab.models.running import runs_model
from caap_lab.models.shuffled import ORDERS, Order, shuffled_models, weight_groups
from caap_lab.models.targets import TargetLike
from caap_lab.statistics import over_present
from caap_lab.tables.frame import Frame
from caap_lab.variant import Variant

if TYPE_CHECKING:
    from matplotlib.axes import Axes

QUANTITY = "rank correlation with the trained model's map"
_SAID = 6
"""Methods that the repr has numbers of."""


@dataclass(frozen=True, eq=False, repr=False)
class RandomisationCheck(LabelledResult):
    """Similarity of each method's map to the original while weights are shuffled. In Jupyter it is displayed as a plot.

    `data` has, with the axes image, method and shuffled (the group of weights that was shuffled last), `similarity`,
    Spearman's rank correlation with the trained model's map, and `absolute`, that of the sizes of the scores, which
    differs for signed maps alone and is NaN for those whose level means nothing, such as CAAP's. Both are NaN where a
    map is constant. With the axes image and shuffled it has the target's `score` under the shuffled weights, and with
    the axis image the trained model's, `trained_score`.
    """

    main: ClassVar[str] = "similarity"

    @property
    def mean(self) -> Float[np.ndarray, "method step"]:
        """Mean over the images whose maps have ranks."""
        return over_present(self.per_image).mean

    @property
    def standard_error(self) -> Float[np.ndarray, "method step"]:
        """Standard error of that mean (ddof 0)."""
        return over_present(self.per_image).standard_error

    def summary(self) -> pd.DataFrame:
        """One row per method and step: mean and standard error, mean of the sizes' correlation, and images with ranks.

        The order of steps is that of the check, from the head down.
        """
        frame = pd.DataFrame(index=self._cells()).reset_index()
        columns = {
            "mean": self.mean,
            "standard_error": self.standard_error,
            "absolute": over_present(self.data["absolute"].values).mean,
            "n": np.isfinite(self.per_image).sum(axis=0),
        }
        return Frame(frame.assign(**{name: numbers.reshape(-1) for name, numbers in columns.items()}))

    def plot(self, ax: "Axes | None" = None, **at: Any) -> "Axes":
        """Similarity over the steps, one line per method; of more than nine methods, a heat map.

        Args:
            ax: Axes to draw in; by default those of a new figure.
            **at: Of which method alone: `plot(method="caap")`.
        """
        from caap_lab.plots.sanity import plot_shuffled

        place = self._at(at)
        if "shuffled" in at:
            return super().plot(ax, **at)
        methods = [at["method"]] if "method" in at else self.axes["method"]
        cells = pd.MultiIndex.from_product([methods, self.axes["shuffled"]], names=["method", "step"])
        numbers = {"mean": self.mean[place].reshape(-1), "se": self.standard_error[place].reshape(-1)}
        cascading = self.data.attrs["order"] == "cascading"
        return plot_shuffled(
            pd.DataFrame(numbers, index=cells).reset_index(),
            self.axes["shuffled"],
            ax,
            label="rank correlation with\nthe trained model's map",
            xlabel="shuffled up to this group" if cascading else "shuffled, alone",
            title=f"{self.model_name}, {self._counted}: {self.data.attrs['target']}",
        )

    def __repr__(self) -> str:
        """What was done, and the similarity at the end."""
        steps = self.axes["shuffled"]
        last = self.mean[:, -1] if self.data.attrs["order"] == "cascading" else self.mean.min(axis=1)
        said = [f"{name} {value:.2f}" for name, value in zip(self.axes["method"], last, strict=True)]
        more = f" and {len(said) - _SAID} more" * (len(said) > _SAID)
        when = "with all shuffled" if self.data.attrs["order"] == "cascading" else "at the lowest"
        return (
            f"RandomisationCheck of {self.model_name}, {self._counted}, weights shuffled in {len(steps)} steps "
            f"({self.data.attrs['order']}): {self.quantity} {when}: {', '.join(said[:_SAID])}{more}"
        )

    @property
    def _counted(self) -> str:
        return counted(self.n_images, "image")


@runs_model
def randomisation_check(
    model: HookedModel,
    images: Images,
    methods: str | Variant | Sequence[str | Variant],
    target: TargetLike | Sequence[TargetLike] | None = None,
    *,
    order: Order = "cascading",
    seed: int = 0,
    batch_size: int | None = None,
    progress: bool = True,
) -> RandomisationCheck:
    """Similarity of methods' maps to the original ones while the model's weights are shuffled.

    ```python
    found = cl.randomisation_check(model, image, ["caap", "grad_cam", "rollout"])
    found.summary(), found.plot()
    ```

    The sanity check of Adebayo et al. 2018 (arXiv 1810.03292): a map that stays the same while the model forgets what
    it has learned does not explain what it has learned. The weights are randomised from the head down to the input, and
    after each step every method maps the same images again, for the same target: what the trained model predicts, if
    none is given. The model itself stays as it is; what changes is a copy.

    Weights are randomised by shuffling the entries of each parameter, where Adebayo et al. draw them anew: see
    `caap_lab.models.shuffled`. Statistics of batch normalisation stay. Maps are compared by Spearman's rank
    correlation, as they are and by their sizes, without structural similarity (SSIM).

    A low similarity is necessary for a faithful map and not sufficient: a map of noise has it as well. And order
    matters: a block shuffled last still hands on the picture that the blocks below it made (Binder et al. 2023,
    arXiv 2211.12486), so that a similarity at half of the steps is no ranking of methods.

    Args:
        model: The model.
        images: One image, or several.
        methods: Names as `cl.attribute` takes them, with options ("caap:cutoff=3") and a label ("mine=caap:cutoff=3").
        target: What is explained, for the trained and all shuffled models; by default the trained model's prediction.
        order: "cascading": a step shuffles its group and leaves all above it shuffled; "independent": its group alone.
        seed: Of the shuffling.
        batch_size: Images run at once; by default each method's own choice. It changes no result.
        progress: Show a progress bar.

    Returns:
        Similarities by image, method and step: 1 + steps maps of each method and image were made.

    Raises:
        InputError: something given does not fit, before anything runs; or a method fails on shuffled weights.
    """
    check_kind(model, "randomisation_check", tuple(KINDS))
    check_choice("order", order, ORDERS)
    check_seed(seed)
    if batch_size is not None:
        check_count("batch_size", batch_size)
    groups = list(weight_groups(model))
    runs = MethodRuns.of(model, images, methods, target)
    inputs, given = list(runs.inputs), [runs.given(image) for image in range(len(runs))]
    similarity = np.empty((len(runs), len(runs.methods), len(groups)))
    absolute, scores = np.empty_like(similarity), np.empty((len(runs), len(groups)))
    with tqdm(total=(1 + len(groups)) * len(runs.methods), desc="shuffled weights", disable=not progress) as bar:
        trained: dict[str, Sequence[AttributionMap]] = {}
        for label in runs.methods:
            trained[label] = runs.maps(model, label, inputs, given, batch_size)
            bar.update()
        for step, (name, shuffled) in enumerate(shuffled_models(model, order, seed)):
            scores[:, step] = _scores(shuffled, runs, given)
            for column, label in enumerate(runs.methods):
                try:
                    maps = runs.maps(shuffled, label, inputs, given, batch_size)
                except InputError as error:
                    raise InputError(f"{label}, with {name} shuffled: {error}") from error
                for image, pair in enumerate(zip(trained[label], maps, strict=True)):
                    similarity[image, column, step] = rank_correlation(*(m.scores for m in pair))
                    absolute[image, column, step] = _by_size(*pair)
                bar.update()
    data = labelled_dataset(
        {"method": list(runs.methods), "shuffled": groups},
        {"similarity": similarity, "absolute": absolute},
        per_image={"trained_score": _scores(model, runs, given)},
        model=model.model_name,
        quantity=QUANTITY,
        target=runs.targets.name,
        order=order,
        seed=seed,
        score=value_name("prob", runs.targets[0]),
    )
    return RandomisationCheck(data.assign(score=(("image", "shuffled"), scores)))


def _by_size(trained: AttributionMap, shuffled: AttributionMap) -> float:
    """Rank correlation of the sizes of scores; NaN where the scores have no zero."""
    if trained.sign == "level":
        return float("nan")
    return rank_correlation(trained.scores.abs(), shuffled.scores.abs())


@torch.no_grad()
def _scores(model: HookedModel, runs: MethodRuns, given: Sequence[Any]) -> Float[np.ndarray, " image"]:
    """The target's probability, or its value where it has none."""
    running, targets = explained(model, list(given), len(given))
    found = [
        target_scores(running, image[None], [target], "prob")
        for image, target in zip(runs.inputs, targets, strict=True)
    ]
    return torch.cat(found).numpy()
