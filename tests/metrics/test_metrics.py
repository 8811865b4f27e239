"""Insertion, deletion and localisation against plain loops, scikit-learn, and maps whose answers are known."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from scipy.signal import convolve2d
from sklearn.metrics import average_precision_score

import caap_lab as cl
from caap_lab.metrics.average_precision import average_precision
from caap_lab.metrics.changed_images import change_order
from caap_lab.metrics.protocol import PROTOCOLS, curve_protocol
from caap_lab.models.directions import direction
from caap_lab.models.targets import contrast
from helpers.models import build, random_images


@pytest.fixture(scope="module")
def demo() -> cl.HookedViT:
    return cl.load_model("demo")


def a_map(model: cl.HookedViT, images: torch.Tensor, scores: torch.Tensor, target: int = 3) -> cl.AttributionMap:
    return replace(cl.attribute(model, images, "input_x_gradient", target), scores=scores)


def plain_rise_blur(image: np.ndarray) -> np.ndarray:
    from scipy.ndimage import gaussian_filter

    impulse = np.zeros((11, 11))
    impulse[5, 5] = 1
    kernel = gaussian_filter(impulse, 5)
    return np.stack([convolve2d(channel, kernel, mode="same") for channel in image])


def plain_enlargement(m: cl.AttributionMap) -> list[Fraction]:
    """The map at each pixel, between the centres of cells; in fractions, as rounding would order equal pixels."""
    lines = [[Fraction(score) for score in row] for row in m.scores.tolist()]
    for count in m.image.shape[:2]:  # rows, then columns
        longer = []
        for i in range(count):
            place = (Fraction(i) + Fraction(1, 2)) * len(lines) / count - Fraction(1, 2)
            place = min(max(place, Fraction(0)), Fraction(len(lines) - 1))
            first = min(int(place), len(lines) - 2)
            above, below = lines[first], lines[first + 1]
            longer.append([a + (place - first) * (b - a) for a, b in zip(above, below, strict=True)])
        lines = [list(line) for line in zip(*longer, strict=True)]
    return [value for row in lines for value in row]


def plain_curves(model: cl.HookedViT, image: torch.Tensor, m: cl.AttributionMap, step: int, score: str = "prob"):
    """RISE's evaluation, one pixel list and one forward pass a step, in the words of its paper."""
    x = image[0].double().numpy()
    _, height, width = x.shape
    saliency = plain_enlargement(m)
    pixels = sorted(range(height * width), key=lambda p: (-saliency[p], p))
    curves = []
    for start, final in ((plain_rise_blur(x), x), (x, np.zeros_like(x))):
        now, values = start.copy(), []
        for first in range(0, height * width + step, step):
            logits = model(torch.from_numpy(now)[None].to(model.dtype))[0].double()
            values.append(
                logits if score == "all logits" else (logits if score == "logit" else logits.softmax(0))[m.target]
            )
            for p in pixels[first : first + step]:
                now[:, p // width, p % width] = final[:, p // width, p % width]
        curves.append(torch.stack(values).numpy())
    return curves


@pytest.mark.parametrize("family", ["vit", "odd_grid", "dinov2_registers", "siglip"])
@torch.no_grad()
def test_curves_equal_a_plain_loop(family: str) -> None:
    model = build(family, torch.float64)
    image = random_images(model, 1)
    m = cl.caap(model, image, 3)
    width = model.preprocessing.image_size[1]
    found = cl.insertion_deletion(model, image, m, batch_size=7)
    insertion, deletion = plain_curves(model, image, m, width)
    np.testing.assert_allclose(found.insertion_curve, insertion, rtol=0, atol=1e-9)
    np.testing.assert_allclose(found.deletion_curve, deletion, rtol=0, atol=1e-9)
    steps = len(insertion) - 1
    rise = (insertion.sum() - insertion[0] / 2 - insertion[-1] / 2) / steps  # RISE's own formula
    assert found.insertion == pytest.approx(rise, abs=1e-9)
    assert found.insdel == pytest.approx(found.insertion - found.deletion, abs=1e-12)
    logits = cl.insertion_deletion(model, image, m, score="logit")
    np.testing.assert_allclose(logits.insertion_curve, plain_curves(model, image, m, width, "logit")[0], atol=1e-8)


@torch.no_grad()
def test_curves_of_other_targets_equal_a_plain_loop() -> None:
    model = build("siglip", torch.float64)
    image = random_images(model, 1)
    probe = direction(model.vit.head.weight[3].detach().clone(), "third")
    bias = float(model.vit.head.bias[3])
    m = cl.caap(model, image, 3)
    plain = [torch.from_numpy(curve) for curve in plain_curves(model, image, m, 512, "all logits")]
    for target, score, name, read in (
        (contrast(3, 5), "prob", "probability", lambda logits: torch.sigmoid(logits[:, 3] - logits[:, 5])),
        (contrast(3), "prob", "probability", lambda logits: logits.softmax(1)[:, 3]),
        (contrast(3), "logit", "difference of logits", lambda logits: logits[:, 3] - logits.mean(1)),
        (contrast(3, 5), "top1", "is the model's answer", lambda logits: logits[:, 3] > logits[:, 5]),
        (probe, "prob", "projection", lambda logits: logits[:, 3] - bias),
        (lambda logits: logits.std(dim=1), "prob", "value", lambda logits: logits.std(dim=1)),
    ):
        found = cl.insertion_deletion(model, image, m, target=target, score=score, step=512, batch_size=4)
        insertion, deletion = (read(logits).double().numpy() for logits in plain)
        np.testing.assert_allclose(found.insertion_curve, insertion, rtol=0, atol=1e-9)
        np.testing.assert_allclose(found.deletion_curve, deletion, rtol=0, atol=1e-9)
        assert found.plot().get_ylabel() == f"'{found.target_name}': {name}"
        # The map's own target is what is scored where none is given, also several of them in one batch.
        mine = replace(m, target=found.target, target_name=found.target_name)
        both = cl.insertion_deletion(model, image, [mine, m], score=score, step=512, progress=False)
        np.testing.assert_allclose(both[0].deletion_curve, deletion, rtol=0, atol=1e-9)
    assert model.vit.head.weight.shape[0] == 7


def test_protocols_that_ask_for_a_class_refuse_other_targets() -> None:
    model = build("vit")
    image = random_images(model, 1)
    m = cl.attribute(model, image, "input_x_gradient", lambda logits: logits[:, 0] ** 2)
    for protocol, asks in (("chefer", "score='top1'"), ("mda", "the base 'mda_blur'")):
        with pytest.raises(cl.InputError, match=f"{asks} of the protocol '{protocol}' needs a class or a contrast"):
            cl.insertion_deletion(model, image, m, protocol=protocol)


def test_a_step_that_does_not_divide_the_image_keeps_its_width() -> None:
    model = build("vit")
    image = random_images(model, 1)
    found = cl.insertion_deletion(model, image, cl.caap(model, image, 3), step=1000)
    np.testing.assert_allclose(found.shares, [0, 1000 / 1024, 1])
    a, b, c = found.deletion_curve
    assert found.deletion == pytest.approx((a + b) / 2 * 1000 / 1024 + (b + c) / 2 * 24 / 1024)


def test_batch_size_and_company_change_nothing(demo: cl.HookedViT) -> None:
    images = [scene.image for scene in cl.demo_images("single", 3, 11)]
    maps = cl.caap(demo, images)
    alone = [cl.insertion_deletion(demo, image, m) for image, m in zip(images, maps, strict=True)]
    for batch_size in (5, 64, 1000):
        together = cl.insertion_deletion(demo, images, maps, batch_size=batch_size)
        for a, b in zip(alone, together, strict=True):
            np.testing.assert_allclose(a.insertion_curve, b.insertion_curve, atol=2e-6)
            np.testing.assert_allclose(a.deletion_curve, b.deletion_curve, atol=2e-6)
    several = cl.insertion_deletion(demo, images[0], [maps[0], replace(maps[0], scores=-maps[0].scores)])
    assert several[0].insertion == pytest.approx(alone[0].insertion, abs=1e-6)
    assert several[1].insdel < several[0].insdel


def test_ends_are_the_image_and_the_base(demo: cl.HookedViT) -> None:
    scene = cl.demo_images("single", 1, 12)[0]
    image = demo.preprocess(scene.image)
    m = cl.caap(demo, image, scene.label)
    with torch.no_grad():
        whole = float(demo(image).softmax(1)[0, scene.label])
        grey = float(demo(torch.zeros_like(image)).softmax(1)[0, scene.label])
        mean, std = (torch.tensor(v).view(3, 1, 1) for v in (demo.preprocessing.mean, demo.preprocessing.std))
        black = float(demo(((0 - mean) / std).expand(1, 3, 64, 64)).softmax(1)[0, scene.label])
    found = cl.insertion_deletion(demo, image, m)
    assert found.deletion_curve[0] == pytest.approx(whole, abs=1e-6)
    assert found.deletion_curve[-1] == pytest.approx(grey, abs=1e-6)
    assert found.insertion_curve[-1] == pytest.approx(whole, abs=1e-6)
    assert cl.insertion_deletion(demo, image, m, deletion_base="black").deletion_curve[-1] == pytest.approx(
        black, abs=1e-6
    )


def test_order_of_change() -> None:
    model = build("vit")  # 4 x 4 patches of 8 pixels
    scores = torch.zeros(4, 4)
    scores[2, 1], scores[0, 3] = 2.0, 1.0
    m = a_map(model, random_images(model, 1), scores)
    order = change_order(m, "nearest-exact")
    cells = [(2, 1), (0, 3), (0, 0), (0, 1)]  # the highest, the next, then ties in reading order
    for place, (row, col) in enumerate(cells):
        cell = order[row * 8 : row * 8 + 8, col * 8 : col * 8 + 8].flatten()
        assert cell.tolist() == list(range(64 * place, 64 * place + 64))
    smooth = change_order(m, "bilinear")
    assert int(smooth.flatten().argmin()) // 32 in range(16, 24)
    assert sorted(smooth.flatten().tolist()) == list(range(1024))
    constant = change_order(replace(m, scores=torch.zeros(4, 4)), "bilinear")
    assert constant.flatten().tolist() == list(range(1024))


def test_protocols() -> None:
    grids = {
        "rise": 224,
        "rise-28": 28,
        "patches": 196,
        "tis": 224,
        "chefer": 8,
        "mutex": 11,
        "xplique": 10,
        "mda": 224,
    }
    assert {name: len(p.counts((224, 224), (14, 14))) - 1 for name, p in PROTOCOLS.items()} == grids
    assert PROTOCOLS["chefer"].counts((224, 224), (14, 14))[-1] == int(0.9 * 224 * 224)
    model = build("vit")
    image = random_images(model, 1)
    m = cl.caap(model, image)
    for name in PROTOCOLS:
        found = cl.insertion_deletion(model, image, m, protocol=name)
        assert found.protocol is PROTOCOLS[name] and np.isfinite([found.insertion, found.deletion]).all()
    accuracy = cl.insertion_deletion(model, image, m, protocol="chefer")
    assert set(accuracy.deletion_curve) <= {0.0, 1.0}
    monotone = cl.insertion_deletion(model, image, m, protocol="mda", insertion_base="rise_blur")
    assert (np.diff(monotone.insertion_curve) >= 0).all() and (np.diff(monotone.deletion_curve) <= 0).all()
    assert monotone.insertion_curve[0] == 0 and monotone.insertion_curve[-1] == 1
    changed = curve_protocol("rise", step=[0, 0.5, 1], score="logit")
    assert changed.name == "rise with step=[0, 0.5, 1], score=logit" and changed.step == (0, 0.5, 1)


def test_true_masks_are_good_maps_and_reversed_ones_bad(demo: cl.HookedViT) -> None:
    kept = []
    for scene in cl.demo_images("single", 12, 13):
        m = cl.caap(demo, scene.image)
        if m.target != scene.label:
            continue
        mask = scene.masks[scene.label]
        truth = replace(m, scores=torch.from_numpy(mask).float(), all_scores=None)
        found = cl.localisation(truth, mask)
        assert (found.aupr1, found.aupr0, found.pointing, found.mass_inside) == (1, 1, 1, 1)
        assert cl.localisation(truth, ~mask).pointing == 0
        curves = cl.insertion_deletion(demo, scene.image, [m, replace(m, scores=-m.scores)])
        kept.append([curves[0].insertion - curves[1].insertion, curves[1].deletion - curves[0].deletion])
    gains = np.array(kept)
    assert len(gains) >= 8 and (gains.mean(axis=0) > 0.2).all() and (gains > 0).mean() > 0.9


def test_localisation_equals_scikit_learn_on_the_normalised_map() -> None:
    model = build("odd_grid")
    image = random_images(model, 1)
    generator = np.random.default_rng(0)
    for upsampling in ("bilinear", "nearest-exact", "bicubic"):
        m = a_map(model, image, torch.from_numpy(generator.normal(size=model.grid)).float())
        mask = generator.random(model.preprocessing.image_size) < 0.3
        ignored = generator.random(mask.shape) < 0.1
        scores = m.upsample(mode=upsampling).double().numpy()
        scores = ((scores - scores.min()) / (scores.max() - scores.min()))[~ignored]
        inside = mask[~ignored]
        found = cl.localisation(m, torch.from_numpy(mask), ignored=ignored, upsampling=upsampling)
        assert found.aupr1 == pytest.approx(average_precision_score(inside, scores), abs=1e-9)
        assert found.aupr0 == pytest.approx(average_precision_score(~inside, 1 - scores), abs=1e-9)
        assert found.mass_inside == pytest.approx(scores[inside].sum() / scores.sum(), abs=1e-9)
        assert found.prevalence == inside.mean()


def test_pointing_game_on_maps_with_known_answers() -> None:
    model = build("vit")
    image = random_images(model, 1)
    scores = torch.zeros(4, 4)
    scores[1, 1] = scores[2, 2] = 1.0
    m = a_map(model, image, scores)
    first, second = np.zeros((32, 32), dtype=bool), np.zeros((32, 32), dtype=bool)
    first[8:16, 8:16], second[16:24, 16:24] = True, True
    nearest = {"upsampling": "nearest-exact"}
    assert cl.localisation(m, first, **nearest).pointing == 1 and cl.localisation(m, second, **nearest).pointing == 0
    assert cl.localisation(m, second, **nearest).pointing_expected == 0.5
    far = np.zeros((32, 32), dtype=bool)
    far[8:16, 3] = True  # the highest pixels begin in column 8
    for tolerance, hit in ((4.9, 0), (5, 1)):
        assert cl.localisation(m, far, tolerance=tolerance, **nearest).pointing == hit
    flat = cl.localisation(replace(m, scores=torch.zeros(4, 4)), first)
    assert flat.pointing == 0 and flat.pointing_expected == flat.aupr1 == flat.mass_inside == flat.prevalence == 1 / 16
    assert flat.aupr0 == pytest.approx(15 / 16)


def test_chance_on_random_maps() -> None:
    model = build("vit")
    image = random_images(model, 1)
    m = a_map(model, image, torch.zeros(4, 4))
    generator = np.random.default_rng(1)
    mask = np.zeros((32, 32), dtype=bool)
    mask[4:20, 6:26] = True
    found = [
        cl.localisation(replace(m, scores=torch.from_numpy(generator.normal(size=(32, 32))).float()), mask)
        for _ in range(400)
    ]
    prevalence = mask.mean()
    assert np.mean([f.aupr1 for f in found]) == pytest.approx(prevalence, abs=0.01)
    assert np.mean([f.aupr0 for f in found]) == pytest.approx(1 - prevalence, abs=0.01)
    assert np.mean([f.pointing for f in found]) == pytest.approx(prevalence, abs=4 * (prevalence / 400) ** 0.5)


def test_what_cannot_be_used_is_refused(demo: cl.HookedViT) -> None:
    scene = cl.demo_images("single", 1, 0)[0]
    m = cl.caap(demo, scene.image)
    for error, options in {
        "There is no protocol 'rize'. Nearest: rise": {"protocol": "rize"},
        "A protocol has no 'steps'. Nearest: step": {"steps": 3},
        "step=0 is not a number of pixels": {"step": 0},
        "step='col' is not": {"step": "col"},
        "ascending list of fractions": {"step": [0.5, 0.2]},
        "score='probability' is not known; use one of prob": {"score": "probability"},
        "batch_size must be a whole number": {"batch_size": 0},
    }.items():
        with pytest.raises(cl.InputError, match=error.replace("(", "\\(")):
            cl.insertion_deletion(demo, scene.image, m, **options)
    with pytest.raises(cl.InputError, match="2 maps need the same number of images, or one for all; 3 were given"):
        cl.insertion_deletion(demo, [scene.image] * 3, [m, m])
    with pytest.raises(cl.InputError, match="was made for another model: "):
        cl.insertion_deletion(build("vit"), random_images(build("vit"), 1), m)
    with pytest.raises(cl.InputError, match=r"Expected attribution maps.*cl.register\("):
        cl.insertion_deletion(demo, scene.image, [m.scores])
    with pytest.raises(cl.InputError, match=r"mask must be bool \[64, 64\].*this is float32 \[64, 64\]"):
        cl.localisation(m, np.zeros((64, 64), dtype=np.float32))
    with pytest.raises(cl.InputError, match="one attribution map and its mask, not MapList; for several"):
        cl.localisation(cl.MapList([m, m]), [])  # type: ignore[arg-type]
    with pytest.raises(cl.InputError, match="this is Image"):
        cl.localisation(m, scene.image)
    with pytest.raises(cl.InputError, match="contains no pixel"):
        cl.localisation(m, np.zeros((64, 64), dtype=bool))
    with pytest.raises(cl.InputError, match="contains every pixel"):
        cl.localisation(m, np.ones((64, 64), dtype=bool))
    with pytest.raises(cl.InputError, match="tolerance"):
        cl.localisation(m, scene.masks[scene.label], tolerance=-1)


def test_curves_show_themselves(demo: cl.HookedViT) -> None:
    scene = cl.demo_images("single", 1, 0)[0]
    curves = cl.insertion_deletion(demo, scene.image, cl.caap(demo, scene.image))
    bundle = curves._repr_mimebundle_()
    assert bundle["image/png"].startswith(b"\x89PNG") and "protocol rise, 64 steps" in bundle["text/plain"]
    ax = curves.plot()
    assert "(%)" in ax.get_xlabel() and len(ax.get_legend().get_texts()) == 2


def test_plots_show_themselves_as_the_value_of_a_cell() -> None:
    """Figures and axes that no pyplot knows of would be shown as text."""
    from IPython.core.formatters import DisplayFormatter

    model, image = cl.load_model("demo"), cl.demo_images("single", 1, seed=0)[0].image
    m = cl.caap(model, image)
    for plot in (m.plot(), cl.insertion_deletion(model, image, m, protocol="patches").plot()):
        data, _ = DisplayFormatter().format(plot)
        assert data["image/png"][:4] == b"\x89PNG"


@pytest.mark.parametrize("digits", [0, 1, 12])
def test_average_precision_is_scikit_learns_to_the_last_bit(digits: int) -> None:
    generator = np.random.default_rng(digits)
    for count in (1, 2, 7, 3000):
        values, labels = generator.normal(size=count).round(digits), generator.random(count) < 0.4
        labels[0] = True
        for some in (values, values.astype(np.float32), np.zeros(count)):
            assert average_precision(labels, some) == average_precision_score(labels, some)
