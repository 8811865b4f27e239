"""Descriptions of a patch made by hand."""

from caap_lab.activations.token_maps import numbered
from caap_lab.models.vit import HookedViT
from caap_lab.widgets.boxes import box_of
from caap_lab.widgets.patch_settings import SOURCE, PatchSettings

_PUT_IN = {
    SOURCE: "the source photo",
    "mean": "the mean over photos",
    "token_mean": "the mean over photos and tokens",
    "shuffled": "another photo",
    "noise": "noise",
    "zero": "zeros",
}


def tokens_words(model: HookedViT, settings: PatchSettings) -> str:
    """The patched tokens, in words."""
    if not settings.point.has_tokens:
        return "all of it"
    cells, cols = settings.cells, model.grid[1]
    parts = []
    if settings.prefix:
        names = numbered(model.spec.prefix)
        parts.append(", ".join(names[token] for token in settings.prefix))
    box = box_of(model.grid, cells)
    if len(cells) == 1:
        parts.append("patch ({}, {})".format(*divmod(cells[0], cols)))
    elif len(cells) == model.spec.n_patches:
        parts.append("all patches")
    elif box is not None:
        top, left, bottom, right = box
        parts.append(f"{bottom - top + 1} x {right - left + 1} patches from ({top}, {left})")
    elif cells:
        parts.append(f"{len(cells)} patches")
    return " and ".join(parts) or "none"


def point_words(settings: PatchSettings) -> str:
    """The place in the network, in words."""
    words = settings.point.name
    if settings.layer_range is not None:
        first, last = settings.layers
        words += f", layer {first}" if first == last else f", layers {first} to {last}"
    if settings.heads:
        words += f", head{'s' * (len(settings.heads) > 1)} {', '.join(map(str, settings.heads))}"
    return words


def put_in_words(settings: PatchSettings) -> str:
    """The replacement, and the state of the other tokens, in words."""
    held = "; others held" if settings.others == "held" else ""
    return f"{_PUT_IN[settings.put_in]}{held}"


def photos_words(settings: PatchSettings) -> str:
    """The photos involved, in words."""
    into = settings.target.name
    return f"{settings.source.name} → {into}" if settings.put_in == SOURCE else into
