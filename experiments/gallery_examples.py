"""Every plot of the package as the lines that make it; these lines also make the pictures of the gallery."""

from typing import NamedTuple

START = """
import caap_lab as cl

model = cl.load_model("demo")
images = cl.open_images("demo:two")[:16]
scenes = cl.demo_images("two", 8, seed=1)
photos = [scene.image for scene in scenes]
one, other = scenes[0].labels
why = cl.contrast(one, other)
""".strip()
"""Lines at the start of all examples."""


class Example(NamedTuple):
    """A plot and the lines that make it."""

    title: str
    shows: str
    """The method or function that draws it: "Class.method", or a function's name."""
    code: str
    """The last line returns the figure, or axes in one."""

    @property
    def picture(self) -> str:
        """Name of the picture without its extension."""
        return self.shows.replace(".", "_").lower()


GROUPS: dict[str, tuple[Example, ...]] = {
    "Maps": (
        Example("A map next to its photo", "AttributionMap.plot", "m = cl.caap(model, photos[0])\nm.plot()"),
        Example(
            "A map in your own axes",
            "AttributionMap.overlay",
            'm = cl.caap(model, photos[0])\nm.overlay(label=m.unit, title="CAAP")',
        ),
        Example("Maps of several photos", "MapList.plot", "maps = cl.caap(model, photos[:3])\nmaps.plot()"),
        Example(
            "Several methods",
            "gallery",
            'methods = ["caap", "libra_ixg_plus", "rollout"]\n'
            "maps = [cl.attribute(model, photos[:2], method) for method in methods]\n"
            "cl.gallery(list(zip(*maps)))",
        ),
    ),
    "Metrics and sweeps": (
        Example(
            "Insertion and deletion of one map",
            "PerturbationCurves.plot",
            "m = cl.caap(model, photos[0])\n"
            'curves = cl.insertion_deletion(model, photos[0], m, protocol="patches")\n'
            "curves.plot()",
        ),
        Example(
            "CAAP over a setting",
            "CaapSweep.plot",
            'sweep = cl.sweep_cutoffs(model, photos[:4], protocol="patches")\nsweep.plot()',
        ),
        Example(
            "Ranks of methods",
            "BenchmarkResult.plot_ranks",
            'methods = ["caap", "libra_ixg_plus", "rollout", "grad_cam"]\n'
            'result = cl.benchmark(model, methods, images, out="runs/ranks", protocol="patches")\n'
            "result.plot_ranks()",
        ),
        Example(
            "Maps while the weights are shuffled",
            "RandomisationCheck.plot",
            'check = cl.randomisation_check(model, photos[:4], ["caap", "grad_cam", "rollout"])\ncheck.plot()',
        ),
        Example(
            "Maps under noise",
            "SensitivityCheck.plot",
            'methods = ["caap", "grad_cam", "input_x_gradient"]\n'
            "check = cl.sensitivity_check(model, photos[:4], methods, samples=3)\n"
            "check.plot()",
        ),
    ),
    "Attention": (
        Example(
            "Attention within and between objects",
            "AttentionRegions.plot",
            'regions = cl.attention_regions(model, images)\nregions.plot(quantity="mass")',
        ),
        Example(
            "How far heads look",
            "AttentionRegions.plot_distance",
            "regions = cl.attention_regions(model, images)\nregions.plot_distance()",
        ),
        Example(
            "How widely heads look",
            "AttentionRegions.plot_entropy",
            "regions = cl.attention_regions(model, images)\nregions.plot_entropy()",
        ),
    ),
    "Patching": (
        Example(
            "A sweep over layers and tokens",
            "SweepResult.plot",
            'source = model.record(photos[0], "resid_pre")\n'
            "patched = cl.sweep(\n"
            "    model,\n"
            "    photos[1],\n"
            '    lambda layer, token: cl.Patch("resid_pre", layer, tokens=token, source=source),\n'
            '    over={"layer": range(8), "token": range(model.spec.n_tokens)},\n'
            "    metric=one,\n"
            ")\n"
            "patched.plot()",
        ),
        Example(
            "Heads removed",
            "Ablation.plot",
            "targets = [cl.contrast(*scene.labels) for scene in scenes]\n"
            "ablated = cl.ablate_heads(model, photos, targets)\n"
            "ablated.plot()",
        ),
        Example(
            "Where two photos differ",
            "Trace.plot",
            "traced = cl.trace(model, photos[0], photos[1])\ntraced.plot()",
        ),
        Example(
            "The same, estimated from gradients",
            "PatchEstimates.plot",
            "estimate = cl.attribution_patching(model, photos[0], photos[1])\nestimate.plot()",
        ),
        Example(
            "Estimate and measurement",
            "Agreement.plot",
            "estimate = cl.attribution_patching(model, photos[0], photos[1])\n"
            "traced = cl.trace(model, photos[0], photos[1])\n"
            "estimate.compare(traced).plot()",
        ),
        Example(
            "Which part acts on which",
            "PathEffects.plot",
            'paths = cl.path_patch(model, photos[0], photos[1], "all", "logits")\npaths.plot()',
        ),
        Example(
            "The largest paths as a graph",
            "PathEffects.graph",
            'paths = cl.path_patch(\n    model, photos[0], photos[1], "mlps", ["mlps", "logits"]\n)\npaths.graph(12)',
        ),
    ),
    "Decompositions": (
        Example(
            "Parts of a logit",
            "LogitAttribution.plot",
            "targets = [cl.contrast(*scene.labels) for scene in scenes]\n"
            "parts = cl.logit_attribution(model, photos, targets)\n"
            "parts.plot()",
        ),
        Example(
            "The parts of the residual stream",
            "ResidualStack.plot",
            "stack = cl.residual_stack(model, photos, tokens=[0])\nstack.plot()",
        ),
        Example("Logit lens", "LogitLens.plot", "lens = cl.logit_lens(model, photos[0], why)\nlens.plot()"),
        Example("Norms of tokens", "TokenNorms.plot", "norms = cl.token_norms(model, photos)\nnorms.plot()"),
        Example(
            "Photos where a feature is strong",
            "TopImages.plot",
            "import torch\n\n"
            "torch.manual_seed(0)\n"
            "half = torch.linalg.qr(torch.randn(model.spec.d_model, model.spec.d_model)).Q\n"
            "basis = torch.cat([half, -half])  # a toy instead of a trained autoencoder\n"
            "sae = cl.SparseAutoencoder.of(\n"
            "    lambda x: (x @ basis.T).relu(), lambda f: f @ basis,\n"
            '    width=model.spec.d_model, name="toy",\n'
            ")\n"
            'store = model.record(photos, "resid_pre", layers=4)\n'
            'features = sae.features(store, "resid_pre", 4)\n'
            "strong = int(features.strongest(0, 1).feature[0])\n"
            "features.top(model, photos, strong).plot()",
        ),
    ),
    "CAAP's parts": (
        Example(
            "A map for each head",
            "CaapParts.plot_maps",
            'heads = {"middle": [(3, 0), (4, 1)], "early": [(0, 0), (1, 1)]}\n'
            "carried = cl.caap_by_head(model, photos[0], why, heads=heads)\n"
            "carried.plot_maps()",
        ),
        Example(
            "Which heads carry a patch",
            "CaapParts.plot",
            'reads = cl.caap_by_head(model, photos[0], why, what="reads", patches="top10")\n'
            'reads.plot(patch=reads.axes["patch"][0])',
        ),
        Example(
            "Which blocks carry a patch",
            "CaapParts.plot_layers",
            'parts = cl.caap_by_block(model, photos[0], why, part="mlp", patches="top10")\nparts.plot_layers()',
        ),
        Example(
            "Interactions of pairs of patches",
            "CaapInteractions.plot",
            'pairs = cl.caap_interactions(model, photos[0], one, patches="top10")\npairs.plot()',
        ),
        Example(
            "Partners of one patch",
            "CaapInteractions.plot_partners",
            'pairs = cl.caap_interactions(model, photos[0], one, patches="top10")\n'
            "pairs.plot_partners(*pairs.patches[0])",
        ),
        Example(
            "Do effects add up?",
            "InteractionCheck.plot",
            "m = cl.caap(model, photos[0], one)\ncl.interaction_check(model, m).plot()",
        ),
    ),
}
