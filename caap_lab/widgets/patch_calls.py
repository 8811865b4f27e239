"""The Python calls for a patch made by hand."""

from collections.abc import Sequence
from itertools import pairwise

from caap_lab.models.vit import HookedViT
from caap_lab.widgets.boxes import box_of
from caap_lab.widgets.patch_settings import SOURCE, PatchSettings
from caap_lab.widgets.photos import Photo


def patch_calls(model: HookedViT, settings: PatchSettings, photos: Sequence[Photo], row: int) -> list[str]:
    """The lines that compute what is shown: the logits `before` and `after`.

    Args:
        model: The model.
        settings: Settings of the patch.
        photos: Photos from which means, noise and other photos' activations are taken.
        row: Index of the photo that gets another one's activations.
    """
    target = settings.target.call
    if settings.is_empty(model):
        return [f"before = after = model({target})"]
    patches, lines = ["patch"], []
    put_in, source = settings.put_in, "source"
    if put_in == "zero":
        source = "0.0"
    else:
        images = settings.source.call if put_in == SOURCE else _images_call(photos)
        made = {
            SOURCE: "",
            "mean": ".mean()",
            "token_mean": ".mean(over=('image', 'token'))",
            "shuffled": f".shuffled(seed=0)[{row}]",
            "noise": ".noise(seed=0)[0]",
        }[put_in]
        lines.append(f"source = model.record({images}, {settings.point.name!r}{_layers_call(settings)}){made}")
    tokens = settings.tokens(model)
    chosen = "" if tokens is None else f", tokens={_tokens_call(model, settings, tokens)}"
    heads = f", heads={list(settings.heads)}" if settings.heads else ""
    lines.append(f"patch = cl.Patch({settings.point.name!r}{_layers_call(settings)}{chosen}{heads}, source={source})")
    held = settings.held_tokens(model)
    if held:
        lines.append(
            f"others = cl.Patch('resid_pre', tokens={_numbers_call(held)}, source=model.record({target}, 'resid_pre'))"
        )
        patches = ["others", "patch"]
    given = patches[0] if len(patches) == 1 else f"[{', '.join(patches)}]"
    return [*lines, f"before, after = model({target}), model.run_patched({target}, {given})"]


def _layers_call(settings: PatchSettings) -> str:
    layers = settings.layer_range
    if layers is None:
        return ""
    return f", layers={layers.start}" if len(layers) == 1 else f", layers=range({layers.start}, {layers.stop})"


def _tokens_call(model: HookedViT, settings: PatchSettings, tokens: list[int]) -> str:
    spec = model.spec
    if len(tokens) == spec.n_tokens:
        return "cl.tokens.all()"
    if not settings.prefix:
        if len(settings.cells) == spec.n_patches:
            return "cl.tokens.patches()"
        box = box_of(spec.grid, settings.cells)
        if box is not None:
            return f"cl.tokens.box({box[0]}, {box[1]}, {box[2] + 1}, {box[3] + 1})"
    if not settings.cells and len(settings.prefix) == spec.n_prefix:
        return "cl.tokens.prefix()"
    return _numbers_call(tokens)


def _numbers_call(numbers: Sequence[int]) -> str:
    """A list of ascending numbers; three or more consecutive ones become a range."""
    breaks = [place + 1 for place, (one, other) in enumerate(pairwise(numbers)) if other != one + 1]
    runs = [numbers[start:stop] for start, stop in pairwise([0, *breaks, len(numbers)])]
    texts = [
        f"*range({run[0]}, {run[-1] + 1})" if len(run) > 2 else ", ".join(map(str, run)) for run in runs if len(run)
    ]
    return f"[{', '.join(texts)}]"


def _images_call(photos: Sequence[Photo]) -> str:
    calls = [photo.call for photo in photos]
    if len(calls) == 1:
        return calls[0]
    if calls == [f"images[{place}]" for place in range(len(calls))]:
        return "images"
    if calls == [f"images[{place}].image" for place in range(len(calls))]:
        return "[one.image for one in images]"
    return f"[{', '.join(calls)}]"
