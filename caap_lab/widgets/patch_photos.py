"""The source and target photos of a patch: those given, blanks, and uploads."""

from typing import cast

from torch import Tensor

from caap_lab.engine.blanks import IMAGE_BLANKS, blank_image
from caap_lab.models.vit import HookedViT
from caap_lab.widgets.image_picker import ImagePicker
from caap_lab.widgets.photos import Photo, dropped, offer


class PatchPhotos:
    """All photos, with the two pickers that choose from them.

    Attributes:
        source: Chooses the photo whose activations are inserted.
        target: Chooses the photo whose run receives them.
    """

    def __init__(self, model: HookedViT, given: list[Photo]) -> None:
        """Offer photos and blanks; the first is the source, and the second, or a white blank, the target.

        Args:
            model: The model.
            given: The photos that the user gave.
        """
        self._model = model
        self._blanks = [_blank(model, kind) for kind in IMAGE_BLANKS]
        self.every = [*given, *self._blanks]
        """All photos; indices do not change, because uploads come last."""
        self.source, self.target = ImagePicker(), ImagePicker(chosen=1)
        self._show()

    @property
    def photos(self) -> list[Photo]:
        """All but the blanks: the photos from which means, noise and other photos' activations are taken."""
        return [photo for photo in self.every if photo not in self._blanks]

    def is_blank(self, photo: Photo) -> bool:
        """True for a blank."""
        return photo in self._blanks

    def chosen(self, picker: ImagePicker) -> Photo:
        """The photo chosen in a picker."""
        return self.every[picker.chosen]

    def add(self, picker: ImagePicker) -> None:
        """Add the file that was dropped on a picker, and choose it there."""
        photo = dropped(self._model, picker)
        if photo is not None:
            self.every.append(photo)
            self._show()
            picker.chosen = len(self.every) - 1

    def _show(self) -> None:
        for picker in (self.source, self.target):
            offer(picker, self.every)


def _blank(model: HookedViT, kind: str) -> Photo:
    x = cast(Tensor, blank_image(model, kind))
    name = f"{kind.replace('_', ' ')} blank"
    return Photo(name, f"cl.blanks.blank_image(model, {kind!r})", x, model.preprocessing.to_rgb(x[0]))
