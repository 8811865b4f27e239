"""Simple Insertion and Deletion, RISE, ViT-CX and MDA against their formulas written out."""

import math
from itertools import pairwise, product
from typing import Any

import numpy as np
import pytest
import torch
from captum.attr import Occlusion
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.ndimage import gaussian_filter, zoom
from scipy.optimize import minimize
from scipy.signal import fftconvolve
from sklearn.cluster import AgglomerativeClustering
from torch import Tensor

from caap_lab import HookedViT, InputError
from caap_lab.attribution.bidirectional import bidirectional
from caap_lab.attribution.curve_values import convex_falls
from caap_lab.attribution.mda import _smoothed, mda
from caap_lab.attribution.occlusion import occlusion
from caap_lab.attribution.rise import _enlarge, rise
from caap_lab.attribution.simple import SIMPLE_INSERTION, simple_deletion, simple_insertion
from caap_lab.attribution.vit_cx import vit_cx
from caap_lab.blur import rise_blur
from caap_lab.engine.blanks import blank_image, mean_activations
from helpers.models import build, random_images, timm_model
from helpers.targets import of_classes


def assert_close(found: Tensor, expected: Tensor | np.ndarray, tolerance: float = 1e-5) -> None:
    expected = torch.as_tensor(expected)
    assert found.shape == expected.shape
    assert float((found.double() - expected).abs().max()) <= tolerance * float(expected.abs().max())


@torch.no_grad()
def prob(model: HookedViT, image: Tensor, target: int) -> float:
    return float(model(image[None]).softmax(dim=1)[0, target])


def patch_pixels(model: HookedViT, patch: int) -> tuple[slice, slice]:
    (_, cols), (height, width) = model.spec.grid, model.spec.patch_size
    row, col = divmod(patch, cols)
    return slice(row * height, (row + 1) * height), slice(col * width, (col + 1) * width)


# -- formulas written out ---------------------------------------------------------------------------------------------


@torch.no_grad()
def plain_simple(model: HookedViT, image: Tensor, target: int, delete: bool, blank: object, reach: int) -> Tensor:
    empty = blank_image(model, blank, 5)[0]
    inside, outside = (empty, image) if delete else (image, empty)
    (rows, cols), (height, width) = model.spec.grid, model.spec.patch_size
    scores = torch.zeros(rows, cols, dtype=torch.double)
    for row in range(rows):
        for col in range(cols):
            made = outside.clone()
            at_rows = slice(max(0, row - reach) * height, (row + reach + 1) * height)
            at_cols = slice(max(0, col - reach) * width, (col + reach + 1) * width)
            made[:, at_rows, at_cols] = inside[:, at_rows, at_cols]
            scores[row, col] = model(made[None])[0, target]
    return -scores if delete else scores


@pytest.mark.parametrize("family", ["vit", "odd_grid", "average_pool"])
def test_simple_methods_equal_the_formula(family: str) -> None:
    model = build(family, torch.float64)
    (image,) = random_images(model, 1)
    for blank, kind, reach in (("white", "box1", 1), ("blurred_noise", "none", 0), (image.flip(1), "box2", 2)):
        options = {"blank": blank, "neighbourhood": kind, "seed": 5}
        for delete, method in ((False, simple_insertion), (True, simple_deletion)):
            found = method(model, image[None], of_classes([2]), **options)[0]
            assert_close(found, plain_simple(model, image, 2, delete, blank, reach))


def plain_occlusion(
    model: HookedViT, image: Tensor, target: int, cover: Tensor, window: tuple[int, int], stride: tuple[int, int]
) -> Tensor:
    """Window by window and pixel by pixel."""
    height, width = model.image_size
    with torch.no_grad():
        whole = model(image[None])[0].softmax(0)[target]
        total, count = torch.zeros(height, width).double(), torch.zeros(height, width)
        for top in range(0, height, stride[0]):
            for left in range(0, width, stride[1]):
                # The last window of a row or column is the first that reaches the edge.
                if (top - stride[0] + window[0] >= height and top) or (left - stride[1] + window[1] >= width and left):
                    continue
                changed = image.clone()
                for row in range(top, min(top + window[0], height)):
                    for col in range(left, min(left + window[1], width)):
                        changed[:, row, col] = cover[:, row, col]
                loss = whole - model(changed[None])[0].softmax(0)[target]
                total[top : top + window[0], left : left + window[1]] += loss
                count[top : top + window[0], left : left + window[1]] += 1
    assert count.min() >= 1
    (rows, cols), (down, across) = model.grid, model.patch_size
    return (total / count).reshape(rows, down, cols, across).mean((1, 3))


@pytest.mark.parametrize(
    ("options", "window", "stride"),
    [({}, (16, 16), (8, 8)), ({"window": 11, "stride": 7, "blank": "blur"}, (11, 11), (7, 7))],
)
def test_occlusion_equals_the_formula(options: dict[str, Any], window: Any, stride: Any) -> None:
    model = build("odd_grid", torch.float64)
    (image,) = random_images(model, 1)
    cover = rise_blur(image[None]) if options else blank_image(model, "mean")
    assert cover is not None
    found = occlusion(model, image[None], of_classes([2]), chunk_size=5, **options)[0]
    assert_close(found, plain_occlusion(model, image, 2, cover[0], window, stride))


def test_occlusion_agrees_with_captum() -> None:
    """One patch at a time, and windows that overlap and are cut off at the edge."""
    model = build("odd_grid", torch.float64)
    images = random_images(model, 2)
    targets = torch.tensor([3, 0])
    white = blank_image(model, "white")
    assert white is not None
    for window, stride in ((8, 8), (14, 5)):
        expected = Occlusion(lambda batch: model(batch).softmax(1)).attribute(
            images, (3, window, window), (3, stride, stride), baselines=white.expand_as(images), target=targets
        )
        found = occlusion(model, images, of_classes(targets), blank="white", window=window, stride=stride)
        assert_close(found, expected[:, 0].reshape(2, 5, 8, 3, 8).mean((2, 4)))


def bilinear(grid: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Enlarged with pixel centres at half-integers, and constant beyond the outer cells' centres."""
    out = np.zeros(size)
    for i in range(size[0]):
        for j in range(size[1]):
            y = min(max((i + 0.5) * grid.shape[0] / size[0] - 0.5, 0), grid.shape[0] - 1)
            x = min(max((j + 0.5) * grid.shape[1] / size[1] - 0.5, 0), grid.shape[1] - 1)
            top, left = int(y), int(x)
            bottom, right = min(top + 1, grid.shape[0] - 1), min(left + 1, grid.shape[1] - 1)
            upper = (1 - x + left) * grid[top, left] + (x - left) * grid[top, right]
            lower = (1 - x + left) * grid[bottom, left] + (x - left) * grid[bottom, right]
            out[i, j] = (1 - y + top) * upper + (y - top) * lower
    return out


def mirrored(grid: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Enlarged with pixel centres at half-integers, and mirrored at the outer cells' centres."""
    out = np.zeros(size)
    for i in range(size[0]):
        for j in range(size[1]):
            y, x = ((k + 0.5) * n / whole - 0.5 for k, n, whole in zip((i, j), grid.shape, size, strict=True))
            for r, c in product(range(-1, grid.shape[0] + 1), range(-1, grid.shape[1] + 1)):
                at = tuple(n - 1 - abs(n - 1 - abs(k)) for k, n in zip((r, c), grid.shape, strict=True))
                out[i, j] += max(0, 1 - abs(y - r)) * max(0, 1 - abs(x - c)) * grid[at]
    return out


def test_rise_masks_are_mirrored_at_the_border() -> None:
    assert mirrored(np.array([[1.0, 0.0]]), (1, 8))[0].tolist() == [
        0.625,
        0.875,
        0.875,
        0.625,
        0.375,
        0.125,
        0.125,
        0.375,
    ]
    grids = (torch.rand(3, 5, 5, generator=torch.Generator().manual_seed(0)) < 0.5).float()
    found = _enlarge(grids, torch.zeros(3, 2, dtype=torch.long), (4, 6), (24, 36))
    for grid, mask in zip(grids.double().numpy(), found[:, 0], strict=True):
        # What scikit-image's resize(order=1, mode="reflect", anti_aliasing=False) calls.
        assert_close(mask, zoom(grid, (24 / 5, 36 / 5), order=1, mode="mirror", grid_mode=True), 1e-6)
    one = _enlarge(torch.ones(1, 1, 1), torch.zeros(1, 2, dtype=torch.long), (8, 8), (8, 8))
    assert torch.equal(one, torch.ones(1, 1, 8, 8))


@pytest.mark.parametrize("family", ["vit", "odd_grid"])
def test_rise_equals_the_formula(family: str) -> None:
    model = build(family, torch.float64)
    (image,) = random_images(model, 1)
    samples, cells, keep = 12, 3, 0.4
    height, width = model.spec.image_size
    cell = (math.ceil(height / cells), math.ceil(width / cells))
    generator = torch.Generator().manual_seed(7)
    grids = (torch.rand(samples, cells, cells, generator=generator) < keep).double().numpy()
    down, across = (torch.randint(size, (samples,), generator=generator).tolist() for size in cell)
    total = np.zeros((height, width))
    for grid, top, left in zip(grids, down, across, strict=True):
        mask = mirrored(grid, ((cells + 1) * cell[0], (cells + 1) * cell[1]))
        mask = mask[top : top + height, left : left + width]
        total += prob(model, image * torch.from_numpy(mask), 2) * mask
    total /= samples * keep
    rows, cols = model.spec.grid
    expected = [[total[patch_pixels(model, r * cols + c)].mean() for c in range(cols)] for r in range(rows)]
    found = rise(model, image[None], of_classes([2]), samples=samples, cells=cells, keep=keep, seed=7)[0]
    assert_close(found, np.array(expected))


def same_partition(a: np.ndarray, b: np.ndarray) -> bool:
    return bool(np.array_equal(a[:, None] == a, b[:, None] == b))


def plain_vit_cx(model: HookedViT, image: Tensor, target: int, distance: float, noise: float, seed: int) -> np.ndarray:
    _, cache = model.run_with_cache(image[None], names_filter=f"blocks.{model.n_layers - 1}.ln1.hook_normalized")
    (features,) = cache.values()
    channels = features[0, model.spec.n_prefix :].detach().numpy().T.reshape(-1, *model.spec.grid)
    large = [bilinear(channel, model.spec.image_size) for channel in channels if np.ptp(channel) > 1e-12]
    scaled = np.array([(m - m.min()) / (m.max() - m.min()) for m in large])
    flat = scaled.reshape(len(scaled), -1)
    apart = np.array([[1 - a @ b / np.linalg.norm(a) / np.linalg.norm(b) for b in flat] for a in flat])
    apart = np.maximum((apart + apart.T) / 2, 0)
    np.fill_diagonal(apart, 0)
    labels = AgglomerativeClustering(
        n_clusters=None, metric="precomputed", linkage="complete", distance_threshold=distance
    ).fit_predict(apart)
    merges = linkage(apart[np.triu_indices(len(apart), 1)], "complete")
    assert same_partition(labels, fcluster(merges, distance, "distance"))
    sums = [scaled[labels == n].sum(axis=0) for n in range(labels.max() + 1)]
    masks = np.array([(s - s.min()) / (s.max() - s.min()) for s in sums])
    generator = torch.Generator().manual_seed(seed)
    total = np.zeros(model.spec.image_size)
    for mask in torch.from_numpy(masks):
        added = noise * torch.randn(image.shape, generator=generator).double() * (1 - mask)
        effect = prob(model, image * mask + added, target) - prob(model, image + added, target)
        total += (effect + prob(model, image, target)) * mask.numpy()
    covered = masks.sum(axis=0)
    return np.divide(total, covered, out=np.zeros_like(total), where=covered > 0) / len(masks)


@pytest.mark.parametrize("family, distance", [("vit", 0.1), ("odd_grid", 0.25), ("dinov2_registers", 0.05)])
def test_vit_cx_equals_the_formula(family: str, distance: float) -> None:
    model = build(family, torch.float64)
    (image,) = random_images(model, 1)
    found = vit_cx(model, image[None], of_classes([3]), distance=distance, noise=0.3, seed=4)[0]
    assert_close(found, plain_vit_cx(model, image, 3, distance, 0.3, 4))


def test_vit_cx_leaves_constant_channels_out() -> None:
    model = build("vit", torch.float64)
    (image,) = random_images(model, 1)
    norm = model.block(model.n_layers - 1).norm1
    with torch.no_grad():
        norm.weight[3:9] = 0
    expected = plain_vit_cx(model, image, 3, 0.1, 0.1, 0)
    assert_close(vit_cx(model, image[None], of_classes([3]))[0], expected)
    alone = (norm.weight == norm.weight[0]).to(norm.weight)
    with torch.no_grad():
        norm.weight.mul_(alone)
    one = vit_cx(model, image[None], of_classes([3]))[0]
    assert one.isfinite().all() and one.max() > 0
    with torch.no_grad():
        norm.weight.zero_()
    assert vit_cx(model, image[None], of_classes([3]))[0].eq(0).all()
    single = build("vit")  # in float32 a channel is constant but for rounding
    with torch.no_grad():
        single.block(3).norm1.weight[3:9] = 0
    assert_close(vit_cx(single, image[None].float(), of_classes([3]))[0], expected, 1e-3)


def plain_bidirectional(model: HookedViT, image: Tensor, target: int, steps: int, first: int) -> Tensor:
    def patterns(image: Tensor) -> list[Tensor]:
        """Patterns of all blocks with their gradients in .grad."""
        kept: list[Tensor] = []

        def keep(x: Tensor, hook: object) -> Tensor:
            kept.append(x.clone())
            kept[-1].retain_grad()
            return kept[-1]

        hooks = [(f"blocks.{layer}.attn.hook_pattern", keep) for layer in range(model.n_layers)]
        model.run_with_hooks(image[None].clone().requires_grad_(), fwd_hooks=hooks)[0, target].backward()
        model.zero_grad()
        return kept

    spec = model.spec
    relevance = torch.eye(spec.n_tokens, dtype=torch.double)
    for pattern in patterns(image)[first:]:
        a, g = pattern.detach()[0], pattern.grad[0]
        weights = torch.stack([(a[h].T @ g[h]).abs().mean() for h in range(spec.n_heads)])
        mixed = sum(w * a[h] for h, w in enumerate(weights / weights.sum()))
        relevance = relevance + mixed @ relevance
    gradients = [patterns(image * t)[-1].grad[0] for t in np.linspace(0, 1, steps)]
    product = (sum(gradients) / steps).clamp(min=0).mean(dim=0) * relevance
    from_class, from_patches = product[0], product[spec.n_prefix :].mean(dim=0)
    if not spec.reads_patches:
        tokens = from_class
    else:
        tokens = from_class + from_patches if model.head is not None else from_patches
    return tokens[spec.n_prefix :].reshape(spec.grid)


@pytest.mark.parametrize("family", ["vit", "average_pool", "dino_head1"])
def test_bidirectional_equals_the_formula(family: str) -> None:
    model = build(family, torch.float64)
    images = random_images(model, 2)
    found = bidirectional(model, images, of_classes([2, 5]), steps=5, chunk_size=2)
    assert_close(found[0], plain_bidirectional(model, images[0], 2, 5, 1))
    assert_close(found[1], plain_bidirectional(model, images[1], 5, 5, 1))
    last = bidirectional(model, images[:1], of_classes([2]), steps=5, start_layer=3)[0]
    assert_close(last, plain_bidirectional(model, images[0], 2, 5, 3))


def plain_convex(curve: np.ndarray) -> np.ndarray:
    """The nearest falling convex curve with the same ends, by a general solver."""
    if len(curve) < 3 or curve[0] <= curve[-1]:
        return curve
    constraints = [
        {"type": "eq", "fun": lambda y: y[[0, -1]] - curve[[0, -1]]},
        {"type": "ineq", "fun": lambda y: np.diff(y, 2)},
        {"type": "ineq", "fun": lambda y: -np.diff(y)},
    ]
    start = np.linspace(curve[0], curve[-1], len(curve))
    options = {"maxiter": 1000, "ftol": 1e-16}
    return minimize(
        lambda y: ((y - curve) ** 2).sum(),
        start,
        jac=lambda y: 2 * (y - curve),
        constraints=constraints,
        method="SLSQP",
        options=options,
    ).x


def plain_smoothed(model: HookedViT, reference: Tensor) -> Tensor:
    """Enlarged to pixels and reduced to patches again: linear interpolation, then triangles as wide as two patches."""
    for axis, (cells, width) in enumerate(zip(model.spec.grid, model.spec.patch_size, strict=True)):
        up = np.zeros((cells * width, cells))
        down = np.zeros((cells, cells * width))
        for pixel in range(cells * width):
            at = min(max((pixel + 0.5) / width - 0.5, 0), cells - 1)
            for cell in range(cells):
                up[pixel, cell] = max(0, 1 - abs(at - cell))
                down[cell, pixel] = max(0, 1 - abs((pixel + 0.5) / width - 0.5 - cell))
        both = torch.from_numpy(down / down.sum(axis=1, keepdims=True) @ up)
        reference = both @ reference if axis == 0 else reference @ both.T
    return reference


def test_mda_smooths_the_reference_as_the_published_code_does() -> None:
    model = HookedViT(timm_model("vit_base_patch16_224", img_size=112, patch_size=16, depth=1))
    single = torch.zeros(1, 7, 7)
    single[0, 3, 3] = 1
    found = _smoothed(model, single)[0]
    assert_close(found[2:5, 2:5], np.array([[1, 4, 1], [4, 16, 4], [1, 4, 1]]) / 36, 0.005)  # .444, .111, .028
    assert_close(found.sum(), np.array(1.0), 1e-9)
    random = torch.rand(1, 7, 7, generator=torch.Generator().manual_seed(0))
    assert_close(_smoothed(model, random)[0], plain_smoothed(model, random[0].double()), 1e-9)


def plain_mda(
    model: HookedViT, image: Tensor, target: int, gamma: float, tau: float, kappa: float, steps: int
) -> tuple[np.ndarray, int]:
    """The map, and how many patches the insertion search put in. Follows the published steps one by one."""
    spec = model.spec
    count, area = spec.n_patches, spec.patch_size[0] * spec.patch_size[1]
    reference = plain_bidirectional(model, image, target, steps, model.n_layers // 4)
    reference = plain_smoothed(model, reference).flatten()
    tries = min(28, 2 * int(count**0.5))
    p_x = prob(model, image, target)
    for size in range(31, 103, 2):
        impulse = np.zeros((size, size))
        impulse[size // 2, size // 2] = 1
        kernel = gaussian_filter(impulse, size)
        blurred = torch.from_numpy(np.stack([fftconvolve(channel, kernel, "same") for channel in image.numpy()]))
        if prob(model, blurred, target) <= 0.01:
            break

    def reveal(base: Tensor, patches: list[int]) -> Tensor:
        made = base.clone()
        for patch in patches:
            at = patch_pixels(model, patch)
            made[:, at[0], at[1]] = image[:, at[0], at[1]]
        return made

    p_blur, black = prob(model, blurred, target), torch.zeros_like(image)
    p_black = prob(model, black, target)
    order: list[int] = []
    salient = sorted(range(count), key=lambda i: -float(reference[i]))
    while len(order) < count:
        tried = [i for i in salient if i not in order][:tries]
        scores = [prob(model, reveal(blurred, [*order, i]), target) for i in tried]
        order.append(tried[int(np.argmax(scores))])
        if (max(scores) - p_blur) / abs(p_x - p_blur) >= tau:
            break
    inserted = len(order)
    faint = sorted(range(count), key=lambda i: float(reference[i]))
    backwards: list[int] = []
    while len(backwards) < count - inserted:
        tried = [i for i in faint if i not in order and i not in backwards][:tries]
        scores = [prob(model, reveal(black, [*backwards, i]), target) for i in tried]
        backwards.append(tried[int(np.argmin(scores))])
    order += backwards[::-1]

    # The preliminary map: values along the order, from the deletion curve one patch per step.
    raw = [prob(model, reveal(black, order[n:]), target) for n in range(count)] + [p_black]
    y = plain_convex(np.minimum.accumulate(np.clip((np.array(raw) - p_black) / abs(p_x - p_black), 0, 1)))
    falls = -np.diff(y)
    preliminary = [falls[n] / area + falls[n] * (count - n - 1) / count for n in range(count)]
    assert all(a >= b - 1e-6 for a, b in pairwise(preliminary))

    pixels = []  # the pixels of patches from the highest value to the lowest, which is the order itself
    for patch in order:
        at = patch_pixels(model, patch)
        pixels += [(r, c) for r in range(at[0].start, at[0].stop) for c in range(at[1].start, at[1].stop)]
    width = spec.image_size[1]
    inserting, deleting = blurred.clone(), image.clone()
    ins, dele = [p_blur], [p_x]
    for step in range(0, len(pixels), width):
        for r, c in pixels[step : step + width]:
            inserting[:, r, c] = image[:, r, c]
            deleting[:, r, c] = 0
        ins.append(prob(model, inserting, target))
        dele.append(prob(model, deleting, target))
    ins = np.maximum.accumulate(np.clip((np.array(ins) - p_blur) / abs(p_x - p_blur), 0, 1))
    dele = np.minimum.accumulate(np.clip((np.array(dele) - p_black) / abs(p_x - p_black), 0, 1))
    old, new = np.linspace(0, 100, len(ins)), np.linspace(0, 100, count + 1)
    y = plain_convex(1 - (np.interp(new, old, ins) + 1 - np.interp(new, old, dele)) / 2)
    sparse, dense = np.zeros(count), np.zeros(count)
    for n, patch in enumerate(order, start=1):
        fall = y[n - 1] - y[n]
        sparse[patch] = fall / area + fall * (count - n) / count
        dense[patch] = (count - n) / count if sparse[patch] >= kappa else sparse[patch]
    dense *= sparse.max() / dense.max()
    return ((1 - gamma) * sparse + gamma * dense).reshape(spec.grid), inserted


@pytest.mark.parametrize("family", ["odd_grid", "average_pool"])
def test_mda_equals_the_published_steps(family: str) -> None:
    model = build(family, torch.float64)
    (image,) = random_images(model, 1, seed=1)
    target = int(model(image[None]).argmax())
    found = mda(model, image[None], of_classes([target]), gamma=0.25, kappa=0.02, steps=4)[0]
    expected, inserted = plain_mda(model, image, target, 0.25, 0.9, 0.02, 4)
    assert 1 <= inserted < model.spec.n_patches
    assert_close(found, expected)


def test_mda_uses_all_patches_where_the_threshold_is_never_reached() -> None:
    model = build("vit", torch.float64)
    (image,) = random_images(model, 1)
    target = 6  # the model is less sure of it on the image than on the blur
    found = mda(model, image[None], of_classes([target]), gamma=0.5, steps=3)[0]
    expected, inserted = plain_mda(model, image, target, 0.5, 0.9, 0.005, 3)
    assert inserted == model.spec.n_patches
    assert_close(found, expected)


def test_convex_falls_are_those_of_the_nearest_convex_curve() -> None:
    generator = np.random.default_rng(0)
    curves = [np.sort(generator.random(n) ** power)[::-1] for n in (2, 3, 8, 17) for power in (1, 3)]
    curves += [(np.arange(17) < 9) * 0.7 + 0.2, np.linspace(1, 0, 9), np.linspace(1, 0, 9) ** 2]
    for curve in curves:
        falls = convex_falls(curve)
        np.testing.assert_allclose(falls, -np.diff(plain_convex(curve)), atol=1e-7)
        assert falls.min() >= 0 and np.diff(falls).max(initial=0) <= 0
    assert convex_falls(np.full(5, 0.3)).tolist() == [0] * 4
    assert convex_falls(np.array([1.0, 0.5, 0.5, 0.5, 0.5]))[1:].tolist() == [0] * 3


# -- where everything ties --------------------------------------------------------------------------------------------


def test_methods_of_a_model_that_says_the_same_of_all_images() -> None:
    model = build("vit")
    torch.nn.init.zeros_(model.vit.head.weight)
    images, targets = random_images(model, 2), torch.tensor([0, 1])
    assert mda(model, images, of_classes(targets), steps=3).eq(0).all()
    for compute in (simple_insertion, simple_deletion):
        assert compute(model, images, of_classes(targets))[0].unique().numel() == 1


def test_mda_of_an_image_without_content() -> None:
    model = build("vit")
    found = mda(model, torch.zeros(1, 3, 32, 32), of_classes([0]), steps=2)  # its blur is itself
    assert found.isfinite().all()


def test_mean_activations_are_no_image() -> None:
    model = build("vit")
    images = random_images(model, 1)
    with pytest.raises(InputError, match="consists of activations"):
        SIMPLE_INSERTION.function(model, images, 0, blank=mean_activations(images))
