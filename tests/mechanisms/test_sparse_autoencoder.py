"""Sparse autoencoders: files as saev and overcomplete write them, features, patches along one feature."""

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

import caap_lab as cl
from caap_lab.mechanisms.sparse_autoencoder import SparseAutoencoder
from caap_lab.mechanisms.sparse_features import SparseFeatures
from helpers.models import build, random_images

WIDTH, FEATURES = 24, 60


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed + sum(shape)))


X = drawn(9, WIDTH)


# -- saev --------------------------------------------------------------------------------------------------------------


def saev_state(**more: Tensor) -> dict[str, Tensor]:
    return {
        "W_enc": drawn(WIDTH, FEATURES),
        "b_enc": drawn(FEATURES),
        "W_dec": F.normalize(drawn(FEATURES, WIDTH), dim=1),
        "b_dec": drawn(WIDTH),
        **more,
    }


def write_saev(path: Path, header: dict[str, Any], state: dict[str, Tensor]) -> Path:
    with path.open("wb") as file:
        file.write((json.dumps(header) + "\n").encode())
        torch.save(state, file)
    return path


def activation(cls: str, **params: Any) -> dict[str, Any]:
    return {"d_model": WIDTH, "d_sae": FEATURES, "activation": {"cls": cls, "params": params}}


def top(codes: Tensor, k: int) -> Tensor:
    threshold = codes.sort(dim=-1, descending=True).values[:, k - 1 : k]
    return codes * (codes >= threshold)


OLD = {"d_vit": WIDTH, "exp_factor": 2, "seed": 0}
THRESHOLD = {"activation.threshold": torch.tensor(1.5)}
SAEV: list[tuple[str, dict[str, Any], dict[str, Tensor], bool, Any]] = [
    ("no schema", {**OLD, "ghost_grads": False}, {}, True, F.relu),
    ("schema 1, TopK", {"schema": 1, "cls": "TopK", "cfg": {**OLD, "top_k": 5}}, {}, False, lambda c: top(c, 5)),
    (
        "schema 1, class apart",
        {"schema": 1, "cls": "SparseAutoencoderConfig", "cfg": activation("Relu")},
        {},
        False,
        F.relu,
    ),
    ("schema 2", {"schema": 2, "cfg": activation("BatchTopK", top_k=4), "lib": "0.2"}, {}, False, lambda c: top(c, 4)),
    ("schema 3", {"schema": 3, "cfg": activation("Relu", sparsity={"coeff": 0.1})}, {}, False, F.relu),
    (
        "schema 4, threshold",
        {"schema": 4, "cfg": activation("BatchTopK", top_k=4, momentum=0.1)},
        THRESHOLD,
        False,
        lambda c: c * (c > 1.5),
    ),
    (
        "schema 5, untrained threshold",
        {"schema": 5, "cfg": activation("BatchTopK", key="batch-top-k", sparsity={"cls": "NoSparsity", "params": {}})},
        {"activation.threshold": torch.tensor(0.0)},
        False,
        F.relu,
    ),
    ("schema 5, TopK", {"schema": 5, "cfg": activation("TopK", top_k=7)}, {}, False, lambda c: top(c, 7)),
]


@pytest.mark.parametrize(("header", "more", "centred", "activate"), [pytest.param(*c[1:], id=c[0]) for c in SAEV])
def test_files_of_saev(
    header: dict[str, Any], more: dict[str, Tensor], centred: bool, activate: Any, tmp_path: Path
) -> None:
    state = saev_state(**more)
    path = write_saev(tmp_path / "sae.pt", header, state)
    sae = SparseAutoencoder.load(path)
    x = X - state["b_dec"] if centred else X
    codes = activate(x @ state["W_enc"] + state["b_enc"])
    assert torch.allclose(sae.encode(X), codes, atol=1e-5)
    assert torch.allclose(sae.decode(codes), codes @ state["W_dec"] + state["b_dec"], atol=1e-5)
    assert (sae.n_features, sae.width) == (FEATURES, WIDTH) and sae.name.startswith("saev, ")
    other = SparseAutoencoder.load(path, subtract_bias=not centred)
    x = X if centred else X - state["b_dec"]
    assert torch.allclose(other.encode(X), activate(x @ state["W_enc"] + state["b_enc"]), atol=1e-5)


# -- overcomplete ------------------------------------------------------------------------------------------------------


def overcomplete_state(norm: nn.Module | None = None, **more: Tensor) -> dict[str, Tensor]:
    state = {
        "encoder.final_block.0.weight": drawn(FEATURES, WIDTH),
        "encoder.final_block.0.bias": drawn(FEATURES),
        "dictionary._weights": drawn(FEATURES, WIDTH),
    }
    if norm is not None:
        state |= {f"encoder.final_block.1.{name}": value for name, value in norm.state_dict().items()}
    return state | more


def trained(norm: Any) -> Any:
    """A norm whose weights and statistics are not the initial ones."""
    for index, (name, value) in enumerate(norm.state_dict().items()):
        if value.is_floating_point():
            value.copy_(drawn(FEATURES, seed=index).abs() if "var" in name else drawn(FEATURES, seed=index))
    return norm.eval()


LEVELS = 0.5 * drawn(FEATURES, seed=3)
BATCH, LAYER = trained(nn.BatchNorm1d(FEATURES)), trained(nn.LayerNorm(FEATURES))
OVERCOMPLETE: dict[str, tuple[dict[str, Tensor], dict[str, Any], Any]] = {
    "relu": (overcomplete_state(), {"activation": "relu"}, F.relu),
    "topk": (overcomplete_state(), {"activation": "topk", "top_k": 6}, lambda c: top(c.relu(), 6)),
    "jump": (overcomplete_state(thresholds=LEVELS), {}, lambda c: c * (c >= LEVELS.exp())),
    "batch": (overcomplete_state(), {"activation": "batchtopk", "threshold": 2.5}, lambda c: c * (c >= 2.5)),
    "batch norm": (overcomplete_state(BATCH), {"activation": "relu"}, lambda c: BATCH(c).relu()),
    "layer norm": (overcomplete_state(LAYER), {"activation": "topk", "top_k": 6}, lambda c: top(LAYER(c).relu(), 6)),
}


@pytest.mark.parametrize("case", OVERCOMPLETE)
@torch.no_grad()
def test_files_of_overcomplete(case: str, tmp_path: Path) -> None:
    state, options, activate = OVERCOMPLETE[case]
    codes = activate(X @ state["encoder.final_block.0.weight"].T + state["encoder.final_block.0.bias"])
    save_file(state, tmp_path / "sae.safetensors")
    torch.save(state, tmp_path / "sae.pth")
    for name in ("sae.safetensors", "sae.pth"):
        sae = SparseAutoencoder.load(tmp_path / name, **options)
        assert torch.allclose(sae.encode(X), codes, atol=1e-4)
        rows = state["dictionary._weights"]
        assert torch.allclose(sae.decode(codes), codes @ (rows / rows.norm(dim=1, keepdim=True)), atol=1e-4)
    plain = SparseAutoencoder.load(tmp_path / "sae.pth", **options, normalisation="identity", mean=X[0], scale=2.0)
    assert torch.allclose(plain.decode(codes), 2 * codes @ state["dictionary._weights"] + X[0], atol=1e-4)
    assert torch.allclose(plain.encode(2 * X + X[0]), codes, atol=1e-4)


def test_relaxed_archetypal_dictionaries_and_other_norms(tmp_path: Path) -> None:
    state = overcomplete_state()
    rows = state.pop("dictionary._weights")
    size = rows.norm(p=1, dim=1, keepdim=True)
    for normalisation, expected in {"max_l1": rows / size.max(), "l1": rows / size}.items():
        save_file({**state, "dictionary._weights": rows}, tmp_path / "sae.safetensors")
        sae = SparseAutoencoder.load(tmp_path / "sae.safetensors", activation="relu", normalisation=normalisation)
        assert torch.allclose(sae.decode(torch.eye(FEATURES)), expected, atol=1e-5)
    mix, points = drawn(FEATURES, 30), drawn(30, WIDTH)
    own = {"W": mix, "C": points, "Relax": drawn(FEATURES, WIDTH), "multiplier": torch.tensor(0.5)}
    save_file({**state, **{f"dictionary.{name}": value for name, value in own.items()}}, tmp_path / "ra.safetensors")
    sae = SparseAutoencoder.load(tmp_path / "ra.safetensors", activation="topk", top_k=3)
    weights = mix.clamp(min=0) / mix.clamp(min=0).sum(1, keepdim=True)
    assert torch.allclose(
        sae.decode(torch.eye(FEATURES)), (weights @ points + own["Relax"]) * 0.5**0 * 2.718281828**0.5, atol=1e-4
    )


def test_what_cannot_be_read_is_refused(tmp_path: Path) -> None:
    def refused(message: str, name: str = "sae.pt", **options: Any) -> None:
        with pytest.raises(cl.InputError, match=message):
            SparseAutoencoder.load(tmp_path / name, **options)

    torch.save(overcomplete_state(), tmp_path / "sae.pt")
    refused("does not name the autoencoder class of overcomplete. Give activation='relu'")
    refused("needs top_k", activation="topk")
    refused("needs threshold", activation="batchtopk")
    refused("has no thresholds", activation="jumprelu")
    refused("activation='gelu' is not known", activation="gelu")
    refused("subtract_bias is for saev files", activation="relu", subtract_bias=True)
    torch.save(nn.Linear(3, 3), tmp_path / "whole.pt")
    refused("holds Python objects besides weights .*nothing in it was run", "whole.pt", activation="relu")
    (tmp_path / "bare.pt").write_bytes(pickle.dumps({"a": Path("/")}))
    refused("holds Python objects|something other than weights", "bare.pt", activation="relu")
    refused("no checkpoint file", "missing.pt")
    torch.save({"weight": X}, tmp_path / "other.pt")
    refused(
        r"neither saev's line of JSON nor overcomplete's .*SparseAutoencoder.of\(model", "other.pt", activation="relu"
    )
    blocks = overcomplete_state(**{"encoder.mlp_blocks.0.0.weight": X})
    torch.save(blocks, tmp_path / "blocks.pt")
    refused("several blocks, but not how they are joined", "blocks.pt", activation="relu")
    for header, message in (
        ({"schema": 6, "cfg": activation("Relu")}, "schema 6; this version reads up to schema 5"),
        ({"schema": 4, "cfg": activation("AbsBatchTopK", top_k=3)}, "'AbsBatchTopK' of .* is not known"),
        ({"schema": 5, "cfg": {}}, "activation function None"),
    ):
        write_saev(tmp_path / "saev.pt", header, saev_state())
        refused(message, "saev.pt")
    write_saev(tmp_path / "saev.pt", {"schema": 5, "cfg": activation("Relu")}, saev_state(b_enc=drawn(3)))
    refused(r"b_enc has shape \[3\]; \[60\] was expected", "saev.pt")
    refused("omit top_k", "saev.pt", top_k=3)
    (tmp_path / "cut.pt").write_bytes(b'{"schema": 5, "cfg"')
    refused("first line is not JSON", "cut.pt")


# -- any encoder and decoder -------------------------------------------------------------------------------------------


class Bent(nn.Module):
    """A decoder that is not linear, and an encoder that gives two things, as overcomplete's do."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(drawn(FEATURES, WIDTH))
        self.drop = nn.Dropout(0.5)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        assert x.ndim == 2
        codes = x @ self.weight.T
        return codes, codes.relu()

    def decode(self, codes: Tensor) -> Tensor:
        return (codes @ self.weight).tanh()[:, None]


def test_any_encoder_and_decoder() -> None:
    module = Bent().eval().requires_grad_(False)
    sae = SparseAutoencoder.of(module, width=WIDTH)
    assert sae.name == "Bent" and sae.n_features == FEATURES
    codes = (X @ module.weight.T).relu()
    assert torch.allclose(sae.encode(X.reshape(3, 3, WIDTH)), codes.reshape(3, 3, FEATURES), atol=1e-5)
    changed = codes.clone()
    changed[:, 7] = 2.0
    back = [(c @ module.weight).tanh() for c in (codes, changed)]
    assert torch.allclose(sae.set(7, 2.0)(X), X + back[1] - back[0], atol=1e-5)
    pair = SparseAutoencoder.of(lambda x: x.relu(), lambda f: f, width=WIDTH, name="parts")
    assert torch.equal(pair.ablate(3)(X)[:, 3], X[:, 3].clamp(max=0)) and "parts" in repr(pair)
    with pytest.raises(cl.InputError, match=r"training mode, .* call .eval\(\) first"):
        SparseAutoencoder.of(Bent(), width=WIDTH)
    with pytest.raises(cl.InputError, match="depend on other tokens"):
        SparseAutoencoder.of(lambda x: x - x.mean(0), lambda f: f, width=WIDTH)
    with pytest.raises(cl.InputError, match=r"\[3, feature\] and \[3, 24\] are expected"):
        SparseAutoencoder.of(lambda x: x, lambda f: f[:, :5], width=WIDTH)
    with pytest.raises(cl.InputError, match="Give an encoder and a decoder"):
        SparseAutoencoder.of(lambda x: x, width=WIDTH)
    with pytest.raises(cl.InputError, match="Feature 60 does not exist"):
        sae.ablate(60)


# -- features and patches ----------------------------------------------------------------------------------------------


def test_features_of_a_store(tmp_path: Path) -> None:
    model = build("dinov2_registers")
    images = random_images(model, 5)
    state = saev_state()
    sae = SparseAutoencoder.load(write_saev(tmp_path / "s.pt", {"schema": 5, "cfg": activation("Relu")}, state))
    store = model.record(images, "resid_pre", layers=[1, 2], out=tmp_path / "store")
    features = sae.features(store, "resid_pre", 2, keep=20, batch_size=2, progress=False)
    x = store["resid_pre", 2]
    codes = (x @ state["W_enc"] + state["b_enc"]).relu()
    kept = top(codes.flatten(0, 1), 20).reshape(codes.shape)
    dense = torch.zeros_like(codes).scatter(-1, features.indices.long(), features.values)
    assert torch.allclose(dense, kept, atol=1e-5) and torch.allclose(features.of(7), kept[..., 7], atol=1e-5)
    assert (features.values.diff(dim=-1) <= 0).all() and torch.equal(features.n_active, (codes > 0).sum(-1).int())
    assert features.dropped == pytest.approx(1 - float(kept.sum() / codes.sum()), abs=1e-6)
    back = codes @ state["W_dec"] + state["b_dec"]
    rows, errors = x.flatten(0, 1), (x - back).flatten(0, 1)
    assert features.explained == pytest.approx(
        1 - float(errors.square().sum() / (rows - rows.mean(0)).square().sum()), abs=1e-4
    )
    assert features.frequency[7] == pytest.approx(float((kept[..., 7] > 0).float().mean()))
    assert sae.features(store, "resid_pre", 2, keep=FEATURES).dropped < 1e-7

    again = SparseFeatures.load(features.save(tmp_path / "features.safetensors"))
    assert torch.equal(again.values, features.values) and repr(again) == repr(features) and len(again) == 5
    with pytest.raises(cl.InputError, match="not a file of sparse features"):
        SparseFeatures.load(tmp_path / "s.pt")
    with pytest.raises(cl.InputError, match="'resid_pre' of layer 3 is not in this store"):
        sae.features(store, "resid_pre", 3)
    with pytest.raises(cl.InputError, match=r"reads 24 values of each token, but pattern has shape \[3, 21, 21\]"):
        sae.features(model.record(images, "pattern", layers=0), "pattern", 0)

    found = features.top(model, images, 7, n=3)
    maps = kept[..., 7][:, model.spec.n_prefix :]
    order = maps.amax(1).argsort(descending=True)[:3]
    frame = found.to_dataframe()
    assert frame["image"].tolist() == order.tolist() and found.maps.shape == (3, *model.grid)
    assert (frame["row"] * model.grid[1] + frame["col"]).tolist() == maps[order].argmax(1).tolist()
    figure = found.plot()
    assert [ax.get_title().split(",")[0] for ax in figure.axes[:3]] == [f"image {i}" for i in order]
    assert "image/png" in found._repr_mimebundle_()
    best = features.strongest(2, n=4)
    assert best["value"][0] == features.values[2].max() and best["feature"].is_unique
    with pytest.raises(cl.InputError, match="are from 5 images; 4 were given"):
        features.top(model, images[:4], 7)
    with pytest.raises(cl.InputError, match="this is another model"):
        features.top(build("vit"), images, 7)


def test_patches_along_one_feature_keep_the_rest(tmp_path: Path) -> None:
    model = build("vit")
    images = random_images(model, 3)
    state = saev_state()
    sae = SparseAutoencoder.load(
        write_saev(tmp_path / "s.pt", {"schema": 5, "cfg": activation("TopK", top_k=9)}, state), mean=X[0], scale=1.5
    )

    def plain(change: Any) -> Tensor:
        """A torch hook on timm's block 2, at the patches."""

        def edit(module: Any, inputs: tuple[Tensor]) -> tuple[Tensor]:
            (x,) = inputs
            codes = top(((x - X[0]) / 1.5 @ state["W_enc"] + state["b_enc"]).flatten(0, 1), 9).reshape(*x.shape[:2], -1)
            delta = 1.5 * (change(codes[..., 7]) - codes[..., 7])[..., None] * state["W_dec"][7]
            return (torch.cat([x[:, :1], (x + delta)[:, 1:]], dim=1),)

        handle = model.vit.blocks[2].register_forward_pre_hook(edit)
        logits = model.vit(images)
        handle.remove()
        return logits

    with torch.no_grad():
        before = model(images)
        for source, change in (
            (sae.ablate(7), torch.zeros_like),
            (sae.set(7, 5.0), lambda f: torch.full_like(f, 5.0)),
            (sae.scale(7, -2.0), lambda f: -2 * f),
        ):
            patch = cl.Patch("resid_pre", 2, tokens=cl.tokens.patches(), source=source)
            found, expected = model.run_patched(images, patch), plain(change)
            assert torch.allclose(found, expected, atol=1e-4) and (found - before).abs().max() > 1e-3
    assert sae.set(7, 5.0).replacement == "feature 7 of saev, TopK 9 set to 5"
    assert sae.scale(7, -2.0).replacement == "feature 7 of saev, TopK 9 times -2"
    with pytest.raises(cl.InputError, match=r"reads 24 values, and blocks.0.attn.hook_q"):
        model.run_patched(images, cl.Patch("q", 0, source=sae.ablate(7)))
    with pytest.raises(cl.InputError, match="value=nan must be a number"):
        sae.set(7, float("nan"))
