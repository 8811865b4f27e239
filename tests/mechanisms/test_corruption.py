"""Corrupted images: changed inside the mask as it is said, and exactly the same outside."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

import caap_lab as cl
from caap_lab import InputError
from helpers.models import build, random_images


def mask_of(*patches: int) -> np.ndarray:
    mask = np.zeros((32, 32), dtype=bool)
    for patch in patches:
        mask.reshape(4, 8, 4, 8)[patch // 4, :, patch % 4] = True
    return mask


def test_objects_are_blanked_blurred_noised_and_swapped() -> None:
    model = build("vit")
    image, other = random_images(model, 2)
    mask = mask_of(5, 6)
    inside = torch.from_numpy(mask)
    pixels = {how: cl.corrupt(model, image, how, masks=mask) for how in ("blank", "blur", "noise")}
    pixels["swap"] = cl.corrupt(model, image, "swap", masks=mask, other=other, other_mask=mask_of(8, 9))
    for how, found in pixels.items():
        assert found.shape == (3, 32, 32) and torch.equal(model.preprocess(found)[0], found)
        assert torch.equal(found[:, ~inside], image[:, ~inside]), how
        assert (found[:, inside] != image[:, inside]).float().mean() > 0.9, how
    grey = cl.blanks.blank_image(model, "mean")[0]
    assert torch.equal(pixels["blank"][:, inside], grey[:, inside])
    blurred = gaussian_filter(image.double().numpy(), (0, 32 / 12, 32 / 12), mode="reflect")
    assert abs(pixels["blur"].numpy() - blurred)[:, mask].max() < 1e-6
    assert torch.equal(pixels["swap"][:, 8:16, 8:24], other[:, 16:24, 0:16])  # boxes of one size: pixel by pixel
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (model.preprocessing.mean, model.preprocessing.std))
    noised = pixels["noise"] * std + mean
    assert noised[:, inside].min() >= -1e-6 and noised[:, inside].max() <= 1 + 1e-6
    assert torch.equal(pixels["noise"], cl.corrupt(model, image, "noise", masks=mask))
    assert not torch.equal(pixels["noise"], cl.corrupt(model, image, "noise", masks=mask, seed=1))
    weak, strong = (cl.corrupt(model, image, "noise", masks=mask, amount=amount) for amount in (0.01, 0.1))
    clipped = ((image * std + mean).clamp(0, 1) - mean) / std
    assert (weak - clipped)[:, inside].abs().mean() < (strong - clipped)[:, inside].abs().mean()


def test_several_images_whole_images_and_masks_of_patches() -> None:
    model = build("odd_grid")
    images = random_images(model, 3)
    patches = np.zeros(model.grid, dtype=bool)
    patches[1, 2] = True
    pixels = np.zeros(model.image_size, dtype=bool)
    pixels[8:16, 16:24] = True
    found = cl.corrupt(model, images, "blank", masks=[patches, pixels, ~patches], blank="white")
    white = cl.blanks.blank_image(model, "white")[0]
    assert found.shape == images.shape
    for image in (0, 1):
        expected = images[image].clone()
        expected[:, 8:16, 16:24] = white[:, 8:16, 16:24]
        assert torch.equal(found[image], expected)
    assert torch.equal(found[2][:, 8:16, 16:24], images[2][:, 8:16, 16:24])
    assert torch.equal(cl.corrupt(model, images, "blank", blank=images[1])[2], images[1])
    assert cl.corrupt(model, list(images[:1]), "blur").shape == (1, 3, *model.image_size)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"how": "fog"}, "blank, blur, noise, swap"),
        ({"masks": np.ones((32, 31), bool)}, "32 x 32 pixels .* or 4 x 4 patches; this is bool"),
        ({"masks": np.ones((32, 32))}, "must be bool"),
        ({"masks": np.zeros((32, 32), bool)}, "selects no pixels"),
        ({"masks": [mask_of(1), mask_of(2)]}, "one mask for each of the 1 images"),
        ({"how": "blank", "amount": 3}, "for how='blur' or how='noise'"),
        ({"amount": 0}, "above 0"),
        ({"how": "noise", "amount": float("nan")}, "finite number above 0"),
        ({"amount": float("inf")}, "finite number above 0"),
        ({"how": "swap", "masks": mask_of(1)}, "needs masks, .* and other"),
        ({"other": torch.zeros(3, 32, 32)}, "are only for how='swap'"),
        ({"how": "blank", "blank": "zero_activations"}, "must be one of white"),
        ({"seed": -1}, "seed"),
    ],
)
def test_what_does_not_fit_is_refused(options: dict, message: str) -> None:
    model = build("vit")
    with pytest.raises(InputError, match=message):
        cl.corrupt(model, random_images(model, 1)[0], **options)
