"""Scores of changed images along curves: points of any number of maps share the model's batches."""

import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from caap_lab.attribution.map import AttributionMap
from caap_lab.metrics.bases import base_image
from caap_lab.metrics.changed_images import change_order, read_scores, scores_under_way
from caap_lab.metrics.protocol import CurveProtocol
from caap_lab.models.at_once import images_at_once
from caap_lab.models.base import HookedModel
from caap_lab.models.later import Later, handed_over
from caap_lab.models.running import running
from caap_lab.models.targets import Target


class CurveJob(NamedTuple):
    """A map to measure. Jobs of the same tensor and target, one after the other, share what does not depend on maps."""

    map: AttributionMap
    image: Float[Tensor, "1 3 height width"]
    """The image as the model's input."""
    target: Target


@dataclass(eq=False)
class CurveScores:
    """The scores of one map's two curves."""

    job: CurveJob
    counts: Int[Tensor, " point"]
    """Number of changed pixels at each point."""
    scores: Float[Tensor, "2 point"]
    """Insertion, deletion; in float64 on the CPU."""
    ends: "CurveScores | None" = None
    """Another map of the same image, whose curves have the scores at both ends already."""
    left: int = 0
    """Number of points that are not scored yet."""
    seconds: float = 0.0
    """Time of the run, where batches are shared according to the number of images in them."""


class _Piece(NamedTuple):
    """Some points of one curve."""

    of: CurveScores
    curve: Float[Tensor, " point"]
    """The tensor for their scores."""
    counts: Int[Tensor, " point"]
    order: Int[Tensor, "height width"]
    front: Float[Tensor, "3 height width"]
    """The image shown at changed pixels."""
    back: Float[Tensor, "3 height width"]
    target: Target


class _UnderWay(NamedTuple):
    """A batch whose scores a GPU may still compute."""

    pieces: list[_Piece]
    begun: tuple[Tensor, Tensor]
    mark: torch.cuda.Event | None


@dataclass(eq=False)
class _Image:
    """What all maps of one image and target share."""

    image: Float[Tensor, "1 3 height width"]
    target: Target
    start: Float[Tensor, "1 3 height width"]
    """The image from which insertion starts."""
    fill: Float[Tensor, "1 3 height width"]
    """The image whose pixels replace deleted ones."""
    ends: CurveScores | None = None
    """The first map whose curves go from the base to the image."""


@dataclass(eq=False)
class CurveBatches:
    """A run of a model along the curves of maps, which are given and returned one by one.

    Points wait until a batch is full, so a map's scores are complete when those of the next maps fill its last batch.
    An image and its bases are scored once for all maps of it that follow each other.
    """

    model: HookedModel
    protocol: CurveProtocol
    batch_size: int
    """Changed images run at once."""
    _waiting: list[_Piece] = field(default_factory=list)
    _filled: int = 0
    _under_way: list[_UnderWay] = field(default_factory=list)
    _open: deque[CurveScores] = field(default_factory=deque)
    _shared: _Image | None = None

    def __post_init__(self) -> None:
        model = self.model
        self._later = Later(model.device)
        self._size = images_at_once(model, self.batch_size)
        self._batch = torch.empty(
            self._size, 3, *model.preprocessing.image_size, device=model.device, dtype=model.dtype
        )

    def run(self, jobs: Iterable[CurveJob]) -> Iterator[CurveScores]:
        """The scores of each job, in order; a job is taken when there is room for it in a batch.

        Raises:
            InputError: the model returns NaN or infinity.
        """
        for job in jobs:
            # No context of the model's is left open while the caller works with a result.
            with running(self.model), torch.no_grad():
                self._add(job)
            yield from self._finished()
        with running(self.model), torch.no_grad():
            if self._filled:
                self._score()
            self._read(0)
        yield from self._finished()

    def _add(self, job: CurveJob) -> None:
        began = time.perf_counter()
        shared = self._of_image(job)
        grid = job.map.grid
        counts = torch.tensor(
            self.protocol.counts(self.model.preprocessing.image_size, grid), dtype=torch.int64, device="cpu"
        )
        scores = torch.zeros(2, len(counts), dtype=torch.float64, device="cpu")
        whole = bool(counts[0] == 0 and counts[-1] == job.image[0, 0].numel())  # from one end to the other
        found = CurveScores(job, counts, scores, shared.ends if whole else None)
        if whole and shared.ends is None:
            shared.ends = found
        inner = slice(None) if found.ends is None else slice(1, -1)
        self._open.append(found)
        order = handed_over(change_order(job.map, self.protocol.upsampling), self.model.device)
        there = counts[inner].to(self.model.device)
        found.left = 2 * len(there)
        found.seconds = time.perf_counter() - began
        image, start, fill = job.image[0], shared.start[0], shared.fill[0]
        self._fill(_Piece(found, scores[0, inner], there, order, image, start, job.target))
        self._fill(_Piece(found, scores[1, inner], there, order, fill, image, job.target))

    def _of_image(self, job: CurveJob) -> _Image:
        shared = self._shared
        if shared is None or shared.image is not job.image or shared.target != job.target:
            start, fill = (
                base_image(name, job.image, self.model, job.target, self.protocol.probability)
                for name in (self.protocol.insertion_base, self.protocol.deletion_base)
            )
            shared = self._shared = _Image(job.image, job.target, start, fill)
        return shared

    def _fill(self, piece: _Piece) -> None:
        """Put a piece's images into the batch, which is scored whenever it is full."""
        while len(piece.counts):
            room = self._size - self._filled
            now = piece._replace(counts=piece.counts[:room], curve=piece.curve[:room])
            piece = piece._replace(counts=piece.counts[room:], curve=piece.curve[room:])
            part = self._batch[self._filled : self._filled + len(now.counts)]
            changed: Bool[Tensor, "point 1 height width"] = now.order < now.counts[:, None, None, None]
            torch.where(changed, now.front, now.back, out=part)
            self._waiting.append(now)
            self._filled += len(now.counts)
            if self._filled == self._size:
                self._score()

    def _score(self) -> None:
        """Start a batch; on a GPU, the scores of the previous batch are read meanwhile."""
        began = time.perf_counter()
        pieces, filled = self._waiting, self._filled
        targets = [piece.target for piece in pieces for _ in piece.counts]
        begun = scores_under_way(
            self.model, self._batch[:filled], targets, self.protocol.score, self.protocol.probability
        )
        self._under_way.append(_UnderWay(pieces, begun, self._later.mark()))
        self._waiting, self._filled = [], 0
        self._read(self._later.ahead)
        each = (time.perf_counter() - began) / filled
        for piece in pieces:
            piece.of.seconds += each * len(piece.counts)

    def _read(self, left: int) -> None:
        """Read the scores of all batches except the last `left`."""
        while len(self._under_way) > left:
            pieces, begun, mark = self._under_way.pop(0)
            with self._later.reading(mark):
                scores = read_scores(*begun)
            for piece, values in zip(pieces, scores.split([len(piece.counts) for piece in pieces]), strict=True):
                piece.curve.copy_(values)
                piece.of.left -= len(piece.counts)

    def _finished(self) -> Iterator[CurveScores]:
        while self._open and self._open[0].left == 0:
            found = self._open.popleft()
            if found.ends is not None:
                found.scores[:, [0, -1]] = found.ends.scores[:, [0, -1]]
            yield found
