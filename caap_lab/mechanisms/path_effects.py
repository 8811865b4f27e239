"""The result of path patching: the effect of each path from a sender to a receiver on a target's score."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pandas as pd
from jaxtyping import Float

from caap_lab.activations.labelled import LabelledResult
from caap_lab.checks import check_count
from caap_lab.errors import InputError
from caap_lab.labels import counted
from caap_lab.mechanisms.layer_table import layer_table
from caap_lab.mechanisms.nodes import Node, NodeSet
from caap_lab.statistics import sign_flip_p, standard_error
from caap_lab.tables.frame import Frame

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True, eq=False, repr=False)
class PathEffects(LabelledResult):
    """Effects of paths for every pair of images, [image, sender, receiver], and [..., target] for several targets.

    `data` has `effect`, the patched score minus the base run's; `share`, the effect divided by the difference between
    the scores of the two runs; the scores `clean` and `corrupted`; with a screen also `estimate`, by which paths were
    chosen. NaN means that there is no direct path, because the receiver is not after the sender, or that it was
    screened out.
    """

    senders: list[NodeSet]
    receivers: list[NodeSet]
    main: ClassVar[str] = "effect"
    counts: ClassVar[str] = "pair"

    @property
    def share(self) -> Float[np.ndarray, "image *axes"]:
        """Effects divided by the difference between the two runs: 1 if the path carries all of it."""
        return self.data["share"].values

    def edges(self, top: int | None = 20, *, target: str | None = None) -> pd.DataFrame:
        """The paths that were run, strongest mean effect first.

        Args:
            top: Number of paths; None for all.
            target: One of several targets.

        Returns:
            One row per path: `sender`, `receiver`, mean `effect` over pairs, its `standard_error`, mean `share`, and
            `p`, the two-sided p-value of a permutation test against no effect (signs of the pairs' effects flipped).
        """
        if top is not None:
            check_count("top", top)
        effects, shares = self._of_target(self.per_image, target), self._of_target(self.share, target)
        rows, columns = np.nonzero(np.isfinite(effects).all(axis=0))
        effects, shares = effects[:, rows, columns], shares[:, rows, columns]
        frame = Frame(
            {
                "sender": np.asarray(self.axes["sender"], dtype=object)[rows],
                "receiver": np.asarray(self.axes["receiver"], dtype=object)[columns],
                "effect": effects.mean(axis=0),
                "standard_error": np.asarray(standard_error(effects)),
                "share": shares.mean(axis=0),
            }
        )
        order = np.argsort(-np.abs(frame["effect"].to_numpy()), kind="stable")[:top]
        return frame.iloc[order].reset_index(drop=True).assign(p=sign_flip_p(effects[:, order]))

    def plot(self, ax: "Axes | None" = None, **at: Any) -> "Axes":
        """Mean over pairs: layer x head for one receiver, otherwise a heat map; see `LabelledResult.plot`.

        Args:
            ax: Axes to draw in; by default those of a new figure.
            **at: Axis to a label: `plot(receiver="logits")`, and `target` if there are several.

        Raises:
            InputError: there is no such label, or more than two axes remain.
        """
        for axis in ("receiver", "sender"):
            if self.data.sizes[axis] == 1 and len(self.axes) > len(at) + 1:
                at = {axis: self.axes[axis][0], **at}
        return super().plot(ax, **at)

    def _table(self, labels: Sequence[Any], values: Float[np.ndarray, " label"]) -> pd.DataFrame | None:
        return layer_table([str(label) for label in labels], values)

    def graph(self, top: int = 20, ax: "Axes | None" = None, *, target: str | None = None) -> "Axes":
        """A picture of the strongest paths: layers from bottom to top, heads side by side, MLPs on the right.

        The width of a line is the size of the mean effect; its colour and dashes show the sign.

        Args:
            top: Number of paths.
            ax: Axes to draw in; by default those of a new figure.
            target: One of several targets.
        """
        from caap_lab.plots.circuit import plot_circuit

        edges = self.edges(top, target=target)
        ends = {one.name: _place(one) for one in [*self.senders, *self.receivers]}
        names = [*edges["sender"], *edges["receiver"]]
        nodes = pd.DataFrame([ends[name] for name in dict.fromkeys(names)], columns=["node", "layer", "column"])
        nodes = nodes.drop_duplicates("node")
        drawn = edges.assign(**{end: [ends[name][0] for name in edges[end]] for end in ("sender", "receiver")})
        read = [name.rsplit(".", 1)[1] if name.endswith((".q", ".k", ".v")) else "" for name in edges["receiver"]]
        of = self.data.attrs["target"] if target is None else target
        title = f"{self.model_name}, {counted(self.n_images, self.counts)}, {len(edges)} strongest paths\n{of}"
        return plot_circuit(nodes, drawn.assign(read=read), ax, label=f"mean {self.quantity}", title=title)

    def _of_target(self, values: np.ndarray, target: str | None) -> Float[np.ndarray, "image sender receiver"]:
        names = self.axes.get("target")
        if names is None:
            if target is not None:
                raise InputError(f"There is only one target, {self.data.attrs['target']}; omit target.")
            return values
        if target not in names:
            raise InputError(f"target={target!r} is unknown; the targets are {', '.join(names)}.")
        return values[..., names.index(target)]

    def __repr__(self) -> str:
        """Size, largest mean, and the number of paths screened out."""
        screen = self.data.attrs["screen"]
        return super().__repr__() + (f"; {screen}" if screen else "")

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        from caap_lab.plots.style import figure_png

        if len(self.axes) > 2:
            return {"text/plain": repr(self)}
        picture = self.graph() if self.data.sizes["receiver"] > 1 and self.data.sizes["sender"] > 1 else self.plot()
        return {"text/plain": repr(self), "image/png": figure_png(picture.figure)}


def _place(given: NodeSet) -> tuple[str, float, float]:
    """Position and name of a sender or receiver in the drawing: a head's queries, keys and values are one node."""
    drawn = [Node(node.kind, node.layer, node.head) for node in given.nodes]
    layer = sum(node.layer + _RISE[node.kind] for node in drawn) / len(drawn)
    column = sum(-1.0 if node.head is None else node.head for node in drawn) / len(drawn)
    single = len(set(drawn)) == 1
    return (drawn[0].name if single else given.name), layer, column


_RISE = {"embed": 0.0, "head": 0.0, "attn": 0.0, "mlp": 0.45, "logits": 0.0}
"""Height of a part above its layer's heads in the drawing, in layers."""
