"""The script that trains the bundled backbones: its optimiser, its curriculum, and going on after an interruption."""

import json
from dataclasses import asdict

import numpy as np
import pytest
import torch

from caap_lab.models.bundled import BACKBONES, TrainedBackbone
from caap_lab.training import recipes, train, weights
from caap_lab.training.muon import Muon, orthogonalised

TINY = recipes.Recipe(steps=3, batch=4, warmup=1)


def test_muon_takes_torchs_own_steps():
    """torch.optim.Muon orthogonalises in bfloat16, whose rounding is the tolerance."""
    torch.manual_seed(0)
    shapes = [(96, 32), (32, 96), (32, 32), (96, 32)]
    ours = [torch.nn.Parameter(torch.randn(shape)) for shape in shapes]
    theirs = [torch.nn.Parameter(value.detach().clone()) for value in ours]
    optimisers = (
        Muon(ours, lr=0.1, momentum=0.9, weight_decay=0.5),
        torch.optim.Muon(theirs, lr=0.1, momentum=0.9, weight_decay=0.5, adjust_lr_fn="match_rms_adamw"),
    )
    for _ in range(3):
        before = [value.detach().clone() for value in theirs]
        for a, b in zip(ours, theirs, strict=True):
            a.grad = torch.randn(a.shape)
            b.grad = a.grad.clone()
        for optimiser in optimisers:
            optimiser.step()
        for a, b, old in zip(ours, theirs, before, strict=True):
            moved = (b - old).norm()
            assert (a - b).norm() < 0.02 * moved
            a.data.copy_(b.data)


def test_orthogonalised_matrices_have_singular_values_near_one():
    torch.manual_seed(0)
    for shape in ((3, 64, 192), (2, 192, 64)):
        singular = torch.linalg.svdvals(orthogonalised(torch.randn(shape)))
        assert singular.min() > 0.6 and singular.max() < 1.3


def test_muon_refuses_a_matrix_without_gradient():
    with pytest.raises(ValueError, match="no gradient"):
        Muon([torch.nn.Parameter(torch.ones(2, 2))], lr=0.1).step()


def test_difficulty_grows_only_while_the_answers_are_right():
    recipe = recipes.Recipe(warmup=5)
    progress = recipes.Progress()
    for _ in range(200):
        progress.advance(0.5, recipe)
    assert progress.difficulty == 0
    for _ in range(200):
        progress.advance(1.0, recipe)
    assert 0.3 < progress.difficulty < 0.8  # some steps pass before the running mean is over the bar
    for _ in range(300):
        progress.advance(1.0, recipe)
    assert progress.difficulty == 1 and progress.step == 700


def test_learning_rate_rises_then_falls():
    recipe = recipes.Recipe(steps=1000, warmup=100, lr=1.0)
    rates = [recipe.lr_at(step) for step in range(1000)]
    assert rates[0] < 0.02 and max(rates) == max(rates[95:105]) > 0.95 and rates[-1] < 0.011
    assert recipe.patch_loss_at(0) == 0.5 and recipe.patch_loss_at(700) == 0 and recipe.patch_loss_at(350) == 0.25


def test_patch_loss_is_cross_entropy_of_what_each_patch_shows():
    scenes = train.draw_scenes(train.scene_generator(0, "train"), 3, "train")
    logits = torch.randn(3, 64, 11)
    expected = total = 0.0
    for scene in range(3):
        for patch in range(64):
            row, column = divmod(patch, 8)
            ink = scenes.masks[scene, 0, row * 8 : row * 8 + 8, column * 8 : column * 8 + 8].mean()
            wanted = scenes.labels[scene, 0] if ink > 0.15 else 10
            weight = 1.0 if ink > 0.15 else 0.3
            expected -= weight * logits[scene, patch].log_softmax(0)[wanted].item()
            total += weight
    assert train._patch_loss(logits, scenes).item() == pytest.approx(expected / total, rel=1e-5)


@pytest.mark.parametrize("name", list(BACKBONES))
def test_training_goes_on_where_it_stopped(name, tmp_path, monkeypatch):
    """A run killed after its second step and started again ends as the whole run would have."""
    recipe = recipes.Recipe(**(asdict(recipes.RECIPES[name]) | {"steps": 3, "batch": 8, "warmup": 1}))
    whole = train.train(recipe)
    state = tmp_path / "run.pt"
    save = train._save

    def save_and_die(path, recipe, run):
        save(path, recipe, run)
        if run.progress.step == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(train, "_save", save_and_die)
        train.train(recipe, state, save_every=1)
    resumed = train.train(recipe, state)
    for key, value in whole.tensors().items():
        np.testing.assert_allclose(resumed.tensors()[key].numpy(), value.numpy(), atol=1e-6)
    with pytest.raises(ValueError, match="another recipe"):
        train.train(recipes.Recipe(**(asdict(recipe) | {"seed": 99})), state)


def test_training_lowers_the_loss_on_easy_scenes():
    torch.manual_seed(0)
    before = TrainedBackbone(BACKBONES["demo-cnn"]).eval()
    model = train.train(recipes.Recipe("demo-cnn", steps=25, batch=32, warmup=2, patch_loss=0.0))
    scenes = train.draw_scenes(train.scene_generator(7, "train"), 200, "train", difficulty=0.0)
    x, labels = weights.to_input(scenes.pixels), torch.from_numpy(scenes.labels[:, 0])
    model.train(), before.train()  # batch statistics: the running ones have seen few batches
    with torch.no_grad():
        loss = {m: torch.nn.functional.cross_entropy(m(x)[0], labels).item() for m in (before, model)}
    assert loss[model] < loss[before] - 0.05


def test_a_loss_that_is_no_number_stops_the_run(monkeypatch):
    monkeypatch.setattr(train, "_patch_loss", lambda logits, scenes: logits.sum() * float("nan"))
    with pytest.raises(RuntimeError, match="the loss became nan at step 0; try a smaller --lr"):
        train.train(TINY)


def test_command_line_writes_weights_and_card(tmp_path, monkeypatch, capsys):
    for module in (train, weights):
        monkeypatch.setattr(module, "EVAL_SCENES", 50)
    monkeypatch.setattr(
        weights, "accuracy", lambda model: 0.25 if model(torch.zeros(1, 3, 64, 64)).shape == (1, 10) else 0
    )
    assert train.main(["demo-dinov2", "--steps", "1", "--seed", "3", "--out", str(tmp_path)]) == 0
    assert "demo-dinov2: accuracy on 50 unseen test scenes: 0.2500" in capsys.readouterr().out
    card = json.loads((tmp_path / "demo-dinov2.json").read_text())
    assert (card["steps"], card["seed"], card["head"]) == (1, 3, "cls+mean")
    assert (
        card["command"]
        == "python -m caap_lab.training.train demo-dinov2 --steps 1 --seed 3 --out caap_lab/models/weights"
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["demo-dinov2.json", "demo-dinov2.safetensors"]
    with pytest.raises(SystemExit):
        train.main(["demo", "--steps", "0", "--out", str(tmp_path)])
