"""Edits along directions: what they do to vectors, and where patches put them."""

import numpy as np
import pytest
import torch

from caap_lab import InputError, Patch, directions, sweep, tokens
from helpers.models import build, random_images


def vectors(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_what_the_edits_do_to_vectors() -> None:
    x, u, v = vectors(5, 4, 8), vectors(8, seed=1), vectors(8, seed=2)
    kept = x.clone()
    assert torch.equal(directions.add(u, -2.5)(x), x - 2.5 * u)
    off = directions.project_off(u)(x)
    assert (off @ u).abs().max() < 1e-12 and torch.allclose(x - off, (x @ u / (u @ u))[..., None] * u)
    both = directions.project_off(u, v, u + 1e3 * v)(x)  # a subspace, given by vectors that depend on each other
    assert (both @ torch.stack([u, v]).T).abs().max() < 1e-10
    assert torch.linalg.matrix_rank((x - both).flatten(0, 1)) == 2

    swapped = directions.swap(3 * u, v)(x)
    one, other = u / u.norm(), v / v.norm()
    basis = torch.stack([one, other])
    (before, after) = (torch.linalg.lstsq(basis.T, rows.flatten(0, 1).T).solution for rows in (x, swapped))
    assert torch.allclose(before, after.flip(0)) and torch.allclose(directions.swap(u, v)(swapped), x)
    rest = [rows - directions.project_off(u, v)(rows) for rows in (x, swapped)]
    assert torch.allclose(x - rest[0], swapped - rest[1])
    assert torch.equal(x, kept) and directions.swap(u, v)(x.float()).dtype == torch.float32
    own = directions.project_off(vectors(4, 8, seed=3), vectors(5, 1, 8, seed=4))(
        x
    )  # one for each token, for each image
    expected = directions.project_off(vectors(4, 8, seed=3)[2], vectors(5, 1, 8, seed=4)[1, 0])(x[1, 2])
    assert torch.allclose(own[1, 2], expected)


def test_patches_edit_chosen_tokens_of_a_stream() -> None:
    model = build("dinov2_registers", torch.float64)
    images = random_images(model, 2)
    u, v = vectors(24, seed=1), vectors(24, seed=2)
    chosen = tokens.box(1, 1, 3, 3)
    rows = chosen.indices(model.spec)
    for edit in (directions.add(u.numpy(), 3.0), directions.project_off(u), directions.swap(u, v)):

        def by_hand(resid: torch.Tensor, hook: object, edit: directions.DirectionEdit = edit) -> torch.Tensor:
            resid = resid.clone()
            resid[:, rows] = edit(resid[:, rows])
            return resid

        found = model.run_patched(images, Patch("resid_pre", 2, tokens=chosen, source=edit))
        expected = model.run_with_hooks(images, fwd_hooks=[("blocks.2.hook_resid_pre", by_hand)])
        assert (found - expected).abs().max() < 1e-10 and (found - model(images)).abs().max() > 1e-6


def test_edits_of_each_image_layer_and_head() -> None:
    model = build("vit", torch.float64)
    images = random_images(model, 3)
    of_images = vectors(3, 1, 24)
    together = model.run_patched(images, Patch("mlp_out", 1, source=directions.add(of_images)))
    for row, (image, vector) in enumerate(zip(images, of_images[:, 0], strict=True)):
        alone = model.run_patched(image, Patch("mlp_out", 1, source=directions.add(vector)))
        assert (together[row] - alone[0]).abs().max() < 1e-10
    by_layer = {0: directions.add(vectors(24)), 1: directions.add(vectors(24, seed=1))}
    both = model.run_patched(images, Patch("resid_pre", [0, 1], source=by_layer))
    apart = model.run_patched(images, [Patch("resid_pre", layer, source=edit) for layer, edit in by_layer.items()])
    assert torch.equal(both, apart)
    heads = vectors(3, 8)
    one = model.run_patched(images, Patch("z", 1, heads=[2], source=directions.add(heads)))
    assert torch.equal(one, model.run_patched(images, Patch("z", 1, heads=[2], source=directions.add(heads[2]))))

    def patch(layer: int) -> Patch:
        return Patch("mlp_out", layer, source=directions.add(of_images))

    chunked = sweep(model, images, patch, over={"layer": [1]}, metric=0, batch_size=2, progress=False)
    assert np.allclose(chunked.values[:, 0], together[:, 0].detach().numpy(), atol=1e-10)


def test_wrong_directions_are_refused() -> None:
    model = build("vit")
    images = random_images(model, 2)
    for source in (vectors(23), vectors(3, 1, 24), vectors(5, 24), vectors(1, 2, 17, 24)):
        with pytest.raises(InputError, match="does not fit"):
            model.run_patched(images, Patch("resid_pre", 1, source=directions.add(source.float())))
    with pytest.raises(InputError, match="zero"):
        directions.project_off(torch.zeros(24))
    with pytest.raises(InputError, match="same"):
        directions.swap(torch.ones(24), 2 * torch.ones(24))
    with pytest.raises(InputError, match="amount"):
        directions.add(torch.ones(24), float("nan"))
    with pytest.raises(InputError, match="floating-point"):
        directions.add([1.0, 2.0])  # type: ignore[arg-type]
    assert "3 times a vector added" in directions.add(torch.ones(24), 3).replacement
