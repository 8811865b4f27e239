"""Class names, and the class index for an index, WordNet id or word that a user types."""

import operator
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from typing import Any

import numpy as np
from torch import Tensor, nn

from caap_lab.errors import InputError
from caap_lab.models.name_containers import ordered_names
from caap_lab.models.width import output_width

_MOST_SHOWN = 10


@dataclass(frozen=True)
class ClassNames:
    """One name per class, in the order of the model's scores.

    Raises:
        InputError: there is no name, a name is not text, the names have no order, or the number of ids differs.
    """

    names: tuple[str, ...]
    """Each may hold several synonyms separated by commas: "tabby, tabby cat". Any container that `ordered_names`
    accepts, such as a list, an array, or a mapping between indices and names."""
    ids: tuple[str, ...] = ()
    """WordNet ids, or empty."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "names", ordered_names(self.names))
        object.__setattr__(self, "ids", tuple(self.ids))
        if not self.names:
            raise InputError("No class names were given.")
        if self.ids and len(self.ids) != len(self.names):
            raise InputError(f"{len(self.ids)} class ids were given for {len(self.names)} names.")

    @classmethod
    def imagenet1k(cls) -> "ClassNames":
        """The 1000 classes of ImageNet-1k, with their WordNet ids."""
        return _imagenet1k()

    @classmethod
    def numbered(cls, n: int) -> "ClassNames":
        """Names "class 0", "class 1" and so on."""
        return cls(tuple(f"class {index}" for index in range(n)))

    @classmethod
    def for_model(cls, vit_or_n_classes: nn.Module | int) -> "ClassNames":
        """ImageNet-1k names for 1000 classes, otherwise numbered ones; for a timm model or a number of classes.

        A model without a classifier counts its features as classes.
        """
        if isinstance(vit_or_n_classes, int):
            n = vit_or_n_classes
        else:
            body: Any = vit_or_n_classes
            chain = [*([body.fc_norm] if hasattr(body, "fc_norm") else []), body.get_classifier()]
            n = output_width(chain, body.head_hidden_size, next(body.parameters()))
        return cls.imagenet1k() if n == 1000 else _numbered(n)

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> str:
        """The first synonym of a class, as `name`: model.class_names[281]."""
        return self.name(index)

    def __iter__(self) -> Iterator[str]:
        """The first synonyms of all classes."""
        return map(self.name, range(len(self)))

    def __repr__(self) -> str:
        """The number of names, and the first ones."""
        few = ", ".join(repr(self.name(index)) for index in range(min(len(self), _MOST_SHOWN)))
        more = ", ..." * (len(self) > _MOST_SHOWN)
        return f"ClassNames: {len(self)}{' with WordNet ids' * bool(self.ids)}: {few}{more}"

    def name(self, index: int) -> str:
        """The first synonym of a class."""
        full = self.names[self._checked(index)]
        return full.split(",")[0].strip() or full

    def find(self, target: Any) -> int:
        """Index of a class.

        Args:
            target: An index (also as digits), a WordNet id such as "n02123045", a synonym, or a word that
                occurs in the names of one class only. Case is ignored.

        Raises:
            InputError: no class matches, or several do; the message lists them.
        """
        if not isinstance(target, str):
            return self._checked(target)
        word = " ".join(target.lower().split())
        exact = [index for index, names in enumerate(self._synonyms()) if word in names]
        if not exact and re.fullmatch(r"[+-]?\d+", word):
            return self._checked(int(word))
        if not exact and word in self.ids:
            return self.ids.index(word)
        pattern = re.compile(rf"(?<!\w){re.escape(word)}(?!\w)", re.IGNORECASE)
        fits = exact or ([i for i, name in enumerate(self.names) if pattern.search(name)] if word else [])
        if len(fits) > 1:
            raise InputError(f"{target!r} matches {len(fits)} classes: {self._list(fits)}. Give the index of one.")
        if not fits:
            raise InputError(f"There is no class {target!r}.{self._nearest(word)}")
        return fits[0]

    def find_many(self, targets: Any, n: int) -> list[int]:
        """Indices for n images.

        Args:
            targets: One target for all images, or a list, array or tensor of n targets; see `find`.
            n: Number of images.

        Raises:
            InputError: the number of targets is not n, or one of them is not a class.
        """
        if isinstance(targets, (np.ndarray, Tensor)) and targets.ndim == 1:
            targets = list(targets)
        if not isinstance(targets, (list, tuple, range)):
            return [self.find(targets)] * n
        if len(targets) != n:
            raise InputError(f"{len(targets)} targets were given for {n} images; give one for all, or one per image.")
        return [self.find(target) for target in targets]

    def _checked(self, index: Any) -> int:
        is_bool = isinstance(index, bool) or str(getattr(index, "dtype", "")).endswith("bool")
        try:
            if is_bool or getattr(index, "ndim", 0) != 0:
                raise TypeError
            number = operator.index(index)
        except (TypeError, RuntimeError):
            shown = f"{type(index).__name__} {index!r}"
            raise InputError(f"A target is the index or the name of a class, not {shown[:80]}.") from None
        if not 0 <= number < len(self):
            raise InputError(f"Class {number} does not exist: this model has classes 0 to {len(self) - 1}.")
        return number

    def _synonyms(self) -> tuple[frozenset[str], ...]:
        return _synonyms(self.names)

    def _list(self, indices: Sequence[int]) -> str:
        shown = "; ".join(f"{index} {self.names[index]}" for index in indices[:_MOST_SHOWN])
        return shown + ("; and more" if len(indices) > _MOST_SHOWN else "")

    def _nearest(self, word: str) -> str:
        by_name: dict[str, int] = {}
        for index, names in enumerate(self._synonyms()):
            for name in sorted(names):
                by_name.setdefault(name, index)
        near = dict.fromkeys(by_name[name] for name in get_close_matches(word, by_name, n=4, cutoff=0.6))
        if near:
            return f" Nearest: {self._list(list(near))}."
        return f" This model has {len(self)} classes, for example: {self._list(range(min(3, len(self))))}."


def as_class_names(names: Sequence[str] | ClassNames | None, n_classes: int) -> ClassNames:
    """Class names for a head; None means ImageNet's for 1000 classes, otherwise numbered ones."""
    if names is None:
        return ClassNames.for_model(n_classes)
    given = names if isinstance(names, ClassNames) else ClassNames(names)  # type: ignore[arg-type]  # any container in `ordered_names`
    if len(given) != n_classes:
        raise InputError(
            f"{len(given)} class names were given for a head of {n_classes} classes. Give one name per class, or set "
            "model.class_names = None for numbered ones."
        )
    return given


@cache
def _synonyms(names: tuple[str, ...]) -> tuple[frozenset[str], ...]:
    """For every class its full name and each of its synonyms, in lower case."""
    return tuple(
        frozenset(part for part in (" ".join(s.lower().split()) for s in (name, *name.split(","))) if part)
        for name in names
    )


@cache
def _numbered(n: int) -> ClassNames:
    return ClassNames.numbered(n)


@cache
def _imagenet1k() -> ClassNames:
    from timm.data import ImageNetInfo

    info = ImageNetInfo()
    return ClassNames(tuple(info.label_descriptions()), tuple(info.label_names()))
