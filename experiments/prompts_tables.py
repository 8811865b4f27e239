"""Tables of `experiments.prompts` as Markdown, with the sentences that hold for them."""

import numpy as np
from jaxtyping import Float

import caap_lab as cl
from benchmarks.machine import describe
from caap_lab.engine.settings import cutoff_blocks
from caap_lab.statistics import holm, sign_flip_p, standard_error
from experiments.prompts_maps import AREAS, TARGETS, Measured

OTHER, REST, OTHERS_MAP = range(len(AREAS))
MEAN = TARGETS.index("contrast to the mean")
KINDS = ("intra-object", "inter-object", "object-to-background")
LEVEL = 0.05


def report(measured: Measured, label: str) -> list[str]:
    """All tables."""
    n = len(measured.pairs)
    return [
        f"{label}. {n} photos with two objects, {2 * n} maps; explained: the prompt of each object in turn, by "
        "its own logit, by its contrast to the mean of all prompts, and by its contrast to the other object's prompt. "
        "Means over photos ± standard errors (ddof 0) of the mean over both prompts; bilinear maps. Star: the paired "
        "difference to CAAP with the same target has p < 0.05 (sign flips over photos, Holm's correction over the "
        f"methods of a column). {describe()}.",
        "",
        "Pairs, the one that the model scores higher first: " + "; ".join(measured.class_names) + ".",
        "",
        "### Object against object",
        "",
        "Area under the ROC curve of a map between the pixels of the asked object and those of the other; pixels of "
        "both are left out. A map that is the same for both prompts has 0.5.",
        "",
        *object_table(measured),
        "",
        *object_sentences(measured),
        "",
        "### The same object under both prompts",
        "",
        "Area under the ROC curve between an object's pixels and all others of the photo, in the map for its own "
        "prompt and in the map for the other one. Explained: the contrast to the mean.",
        "",
        *prompt_table(measured),
        "",
        "### Block by block",
        "",
        "Attention mass: percent of the attention of an object's patches that goes to the same object, to the other, "
        "and to the background (mean over heads); control: to the same object with the masks of the next photo. CAAP: "
        "the areas of above with blocks 0 to this one patched, where it was run; the default is "
        f"blocks 0 to {default_cutoff(measured) - 1}.",
        "",
        *block_table(measured),
        "",
        *block_sentences(measured),
    ]


def object_table(measured: Measured) -> list[str]:
    """One row per method, one column per target."""
    lines = [f"| method | {' | '.join(TARGETS)} |", "|---" * (len(TARGETS) + 1) + "|"]
    p = p_values(measured)
    for label, values in measured.methods.items():
        cells = [f"{cell(values[:, t, OTHER])}{' *' if p[label][t] < LEVEL else ''}" for t in range(len(TARGETS))]
        lines.append(f"| {label} | {' | '.join(cells)} |")
    return lines


def p_values(measured: Measured) -> dict[str, Float[np.ndarray, " target"]]:
    """P-values of the differences to CAAP, corrected over methods; NaN for CAAP itself."""
    caap, others = measured.methods["caap"], [label for label in measured.methods if label != "caap"]
    raw = np.stack([sign_flip_p(measured.methods[o][:, :, OTHER] - caap[:, :, OTHER]) for o in others])
    corrected = np.stack([holm(column) for column in raw.T], axis=1)
    return {"caap": np.full(len(TARGETS), np.nan), **dict(zip(others, corrected, strict=True))}


def object_sentences(measured: Measured) -> list[str]:
    """Sentences on each target, and on the differences between targets."""
    p, caap = p_values(measured), measured.methods["caap"][:, :, OTHER]
    lines = []
    for t, target in enumerate(TARGETS):
        means = {label: float(values[:, t, OTHER].mean()) for label, values in measured.methods.items()}
        order = sorted(means, key=means.__getitem__, reverse=True)
        above, below = (
            [label for label in order if p[label][t] < LEVEL and (means[label] > means["caap"]) == higher]
            for higher in (True, False)
        )
        lines.append(
            f"- Explained by the {target}: {order[0]} has the highest mean "
            f"({means[order[0]]:.3f}); CAAP's {means['caap']:.3f} is number {order.index('caap') + 1} of {len(order)}. "
            f"Distinguishable from CAAP: {', '.join(above) or 'none'} above it, {', '.join(below) or 'none'} below it."
        )
    gains = {label: values[:, MEAN, OTHER] - values[:, 0, OTHER] for label, values in measured.methods.items()}
    most = max((label for label in gains if label != "caap"), key=lambda label: float(gains[label].mean()))
    lines.append(
        f"- The contrast to the mean instead of the own logit changes CAAP's area by {signed(gains['caap'])}; it "
        f"raises that of {most} most, by {signed(gains[most])}. The contrast of the two instead of that to the mean "
        f"changes CAAP's by {signed(caap[:, 2] - caap[:, MEAN])}."
    )
    return lines


def prompt_table(measured: Measured) -> list[str]:
    """The object's area in its own map and in the other's."""
    lines = [
        "| method | own prompt | other prompt | difference | photos where own is higher |",
        "|---|---|---|---|---|",
    ]
    for label, values in measured.methods.items():
        own, other = values[:, MEAN, REST], values[:, MEAN, OTHERS_MAP]
        higher = f"{int((own > other).sum())} of {len(own)}"
        lines.append(f"| {label} | {cell(own)} | {cell(other)} | {signed(own - other)} | {higher} |")
    return lines


def block_table(measured: Measured) -> list[str]:
    """Attention and CAAP's areas, one row per block."""
    columns = {f"attention: {kind}": attention_cells(mass(measured.attention, kind)) for kind in KINDS}
    columns["attention: control"] = attention_cells(mass(measured.control, KINDS[0]))
    columns |= {f"CAAP, {target}": cutoff_cells(measured, t, OTHER) for t, target in enumerate(TARGETS)}
    columns["CAAP, contrast to the mean, against the rest"] = cutoff_cells(measured, MEAN, REST)
    lines = [f"| block | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    rows = zip(*columns.values(), strict=True)
    return lines + [f"| {block} | {' | '.join(row)} |" for block, row in enumerate(rows)]


def block_sentences(measured: Measured) -> list[str]:
    """Where attention and CAAP's areas are highest."""
    lines = []
    for kind in KINDS[:2]:
        values = mass(measured.attention, kind)
        means = np.nanmean(values, axis=0)
        top, last = int(means.argmax()), len(means) - 1
        sentence = f"- {kind.capitalize()} attention takes {means[0]:.1f}% of an object's attention in block 0"
        if top == last:
            lines.append(f"{sentence} and most, {means[last]:.1f}%, in the last block.")
        else:
            fall = signed(values[:, last] - values[:, top], digits=1)
            lines.append(
                f"{sentence}, most in block {top} ({means[top]:.1f}%), and {means[last]:.1f}% in the last block, "
                f"{fall} points from the highest."
            )
    beyond = mass(measured.attention, KINDS[0]) - mass(measured.control, KINDS[0])
    top = int(np.nanmean(beyond, axis=0).argmax())
    lines.append(
        f"- Intra-object attention is furthest above that with the next photo's masks in block {top}, by "
        f"{signed(beyond[:, top], digits=1)} points; in block 0 by {signed(beyond[:, 0], digits=1)} and in the last by "
        f"{signed(beyond[:, -1], digits=1)}."
    )
    default = default_cutoff(measured)
    for area, what in ((OTHER, "the other object"), (REST, "the rest of the photo")):
        areas = {cutoff: of[:, MEAN, area] for cutoff, of in measured.cutoffs.items()}
        best = max(areas, key=lambda cutoff: float(areas[cutoff].mean()))
        others = [cutoff for cutoff in (min(areas), default, max(areas)) if cutoff != best]
        compared = [
            f"cutoff {cutoff} lies {signed(areas[cutoff] - areas[best])} from it "
            f"(p {float(sign_flip_p(areas[cutoff] - areas[best])):.2f}, not corrected)"
            for cutoff in others
        ]
        lines.append(
            f"- Against {what}, explained by the contrast to the mean, CAAP's area is highest with cutoff {best} "
            f"(blocks 0 to {best - 1}; {areas[best].mean():.3f}); {', '.join(compared)}."
        )
    return lines


def default_cutoff(measured: Measured) -> int:
    """CAAP's default cutoff."""
    return cutoff_blocks(None, len(measured.attention.data["layer"]))


def mass(found: cl.AttentionRegions, kind: str) -> Float[np.ndarray, "photo layer"]:
    """Attention mass in percent, mean over heads."""
    return found.data["mass"].sel(kind=kind).mean("head").values * 100


def attention_cells(values: Float[np.ndarray, "photo layer"]) -> list[str]:
    """Means over the photos that have such pairs."""
    return [cell(of[np.isfinite(of)], digits=1) for of in values.T]


def cutoff_cells(measured: Measured, target: int, area: int) -> list[str]:
    """CAAP's areas with each block as the last patched one; empty where this cutoff was not run."""
    blocks = range(len(measured.attention.data["layer"]))
    known = measured.cutoffs
    return [cell(known[block + 1][:, target, area]) if block + 1 in known else "" for block in blocks]


def cell(values: Float[np.ndarray, " photo"], digits: int = 3) -> str:
    """Mean and standard error."""
    return f"{values.mean():.{digits}f} ± {float(standard_error(values)):.{digits}f}"


def signed(values: Float[np.ndarray, " photo"], digits: int = 3) -> str:
    """Mean difference with its sign, and standard error."""
    kept = values[np.isfinite(values)]
    return f"{kept.mean():+.{digits}f} ± {float(standard_error(kept)):.{digits}f}"
