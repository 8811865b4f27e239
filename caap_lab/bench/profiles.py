"""The two profiles of the paper's tables: `paper`, on its models and data sets, and `demo`, on the bundled world."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from caap_lab.bench.identity import classes_are_texts
from caap_lab.bench.plan import BenchmarkPlan, Data, Study
from caap_lab.bench.published import METHODS, names, tables
from caap_lab.data.image_set import ImageSet, read_list
from caap_lab.data.open import open_images
from caap_lab.errors import InputError
from caap_lab.metrics.catalogue import BUILT_IN
from caap_lab.metrics.protocol import CurveProtocol, curve_protocol
from caap_lab.models.targets import Logit
from caap_lab.variant import Variant, parse_variant

DATASETS = {
    "ImageNet-1K": "imagenet",
    "ImageNet-S": "imagenet-s",
    "ImageNet-Hard": "imagenet-hard",
    "Oxford-IIIT-Pet": "pet",
    "Food-101": "food101",
}
"""The paper's data sets, and the kinds that `cl.open_images` knows."""
MODELS = {
    "ViT-S/16": "vit_small_patch16_224.augreg_in21k_ft_in1k",
    "ViT-B/16": "vit_base_patch16_224.augreg2_in21k_ft_in1k",
    "ViT-L/16": "vit_large_patch16_224.augreg_in21k_ft_in1k",
    "CLIP-B/16": "vit_base_patch16_clip_224.openai_ft_in1k",
    "CLIP-L/14": "vit_large_patch14_clip_224.openai_ft_in1k",
    "CLIP-H/14": "vit_huge_patch14_clip_224.laion2b_ft_in12k_in1k",
    "DINOv2-S/14": "vit_small_patch14_dinov2.lvd142m:image_size=224",
    "DINOv2-B/14": "vit_base_patch14_dinov2.lvd142m:image_size=224",
    "DINOv2-L/14": "vit_large_patch14_dinov2.lvd142m:image_size=224",
    "DINOv2-G/14": "vit_giant_patch14_dinov2.lvd142m:image_size=224",
    "DeiT3-S/16": "deit3_small_patch16_224.fb_in22k_ft_in1k",
    "DeiT3-B/16": "deit3_base_patch16_224.fb_in22k_ft_in1k",
    "DeiT3-L/16": "deit3_large_patch16_224.fb_in22k_ft_in1k",
    "DeiT3-H/14": "deit3_huge_patch14_224.fb_in22k_ft_in1k",
    "ResNet-18": "resnet18.tv_in1k",
    "ResNet-50": "resnet50.tv_in1k",
    "DenseNet-161": "densenet161.tv_in1k",
    "VGG-16": "vgg16.tv_in1k",
}
"""The paper's models as timm's weights. It does not name its checkpoints: these are those of a co-author's public code
for the same data sets (LibraGrad), and torchvision's for the CNNs. DINOv2 needs a head file beside, see `heads`."""
HEADS = {f"DINOv2-{size}/14": f"dinov2_vit{size.lower()}14_linear_head.pth" for size in "SBLG"}
"""Models that have no classifier, and the file of the dinov2 repository that gives them one."""
HEADS_HOME = "github.com/facebookresearch/dinov2, under pretrained heads for image classification"
IMAGES = {"faithfulness": 500, "localisation": 128}
"""Images per data set in the paper: 500 are stated, 128 follow from its standard errors."""

DEMO_DATASETS = {
    "ImageNet-1K": "demo:single",
    "ImageNet-S": "demo:two",
    "ImageNet-Hard": "demo:bright-ink",
    "Oxford-IIIT-Pet": "demo:twice",
    "Food-101": "demo:spurious",
}
"""What stands in for the paper's data sets in the demo profile."""
DEMO_MODELS = {"ViT": "demo", "CLIP": "demo-clip", "DINOv2": "demo-dinov2", "DeiT3": "demo-deit3"}
"""What stands in for the paper's families."""
DEMO_CNN = {"ResNet-18": "demo-cnn"}
DEMO_IMAGES = 12


def stand_in(name: str) -> str | None:
    """What the demo profile has in the place of one of the paper's data sets or models; None where it has nothing."""
    return DEMO_DATASETS.get(name) or DEMO_CNN.get(name) or DEMO_MODELS.get(name.partition("-")[0])


def stand_ins(table: int) -> str:
    """What stands in for the data sets and models of one of the paper's tables in the demo profile, as a sentence."""
    pairs = [(stand_in(name), name) for what in ("dataset", "model") for name in names(table, what)]
    return f"Stand-ins: {', '.join(f'{own} for {name}' for own, name in pairs if own)}."


def paper_name(table: int, label: str) -> str:
    """The paper's name for a model of one of its tables, by what the plan of either profile calls it."""
    return next((name for name in names(table, "model") if label in (name, stand_in(name))), label)


def demo_plan(images: int = DEMO_IMAGES, chosen: Sequence[int] | None = None) -> BenchmarkPlan:
    """All tables on the bundled world, laid out as the paper's, under the names of what stands in for its own.

    Args:
        images: Scenes of each kind.
        chosen: Numbers of tables; all by default.
    """
    specs = {name: own for name in MODELS if (own := stand_in(name))}
    sets = {name: open_images(source).sample(images, seed=0) for name, source in DEMO_DATASETS.items()}
    notes = (
        f"Scaled down: the bundled world stands in for the paper's models and data sets ({images} generated scenes of "
        f"each kind instead of {IMAGES['faithfulness']} and {IMAGES['localisation']} photos, at 64 x 64 pixels).",
        "The bundled models have one size: tables 4, 6 and 8 (5, 7 and 9) show the same maps as table 1 (2).",
        f"Of the CNNs only {', '.join(DEMO_CNN)} has a counterpart; the others are left out of tables 14 and 15.",
    )
    return _plan("demo", specs, sets, {"faithfulness": images, "localisation": images}, chosen, "rise", notes)


def paper_plan(
    data: Sequence[str],
    *,
    models: Sequence[str | Variant] = (),
    heads: Mapping[str, str | Path] | None = None,
    chosen: Sequence[int] | None = None,
    images: int | None = None,
    seed: int = 0,
    image_lists: Mapping[str, str | Path] | None = None,
    protocol: str | CurveProtocol = "rise",
) -> BenchmarkPlan:
    """The paper's tables on its own models and data sets.

    Args:
        data: The user's copies: "imagenet:PATH", "imagenet-s:PATH", "imagenet-hard:PATH", "pet:PATH", "food101:PATH".
        models: Instead of a model of `MODELS`: "DINOv2-L/14=NAME:checkpoint=PATH,head=PATH".
        heads: DINOv2's linear heads, by the paper's name for the model.
        chosen: Numbers of tables; all by default.
        images: Images per data set; by default the paper's 500 and 128.
        seed: Of the draw of images.
        image_lists: Files of image names instead of a draw, by the paper's name for the data set.
        protocol: Of the curves.

    Raises:
        InputError: a data set that a table needs is missing; the message says which, and how to leave it out.
    """
    wanted = chosen_tables(chosen)
    sources = paper_sources(data)
    needed = list(dict.fromkeys(dataset for table in wanted for dataset in names(table, "dataset")))
    missing = [name for name in needed if name not in sources]
    if missing:
        where = ", ".join(f"{name} (--data {DATASETS[name]}:PATH)" for name in missing)
        without = [table for table in wanted if not set(names(table, "dataset")) & set(missing)]
        rest = f" Without them: --tables {' '.join(map(str, without))}." if without else ""
        raise InputError(f"The tables need {where}.{rest} `caap-lab doctor` says how to get each.")
    specs = paper_models(models, heads)
    check_names(image_lists or {})
    sets = {name: open_images(sources[name]) for name in needed}
    lists = {name: sets[name].only(read_list(path)) for name, path in (image_lists or {}).items() if name in sets}
    used = {model for table in wanted for model in names(table, "model")}
    for name, file in HEADS.items():
        if name in used and "head" not in specs[name].options:
            raise InputError(
                f"{name} needs DINOv2's linear head, the file {file} of the dinov2 repository: --head {name}=PATH. "
                "`caap-lab doctor` lists all that is missing."
            )
    counts = {group: count if images is None else images for group, count in IMAGES.items()}
    notes = (
        "The paper names no checkpoints, and neither its cutoff nor the details of its curves could be recovered: the "
        "values that ran are in each row's settings and protocol.",
    )
    return _plan("paper", specs, {**sets, **lists}, counts, wanted, protocol, notes, seed, frozenset(lists))


def paper_sources(data: Sequence[str]) -> dict[str, str]:
    """The user's copies, "KIND:PATH", by the paper's name for the data set.

    Raises:
        InputError: a kind is none of the paper's.
    """
    names_of_kinds = {kind: name for name, kind in DATASETS.items()}
    sources = {}
    for source in data:
        kind = source.partition(":")[0]
        if kind not in names_of_kinds:
            raise InputError(
                f"{source!r} is none of the paper's data sets; those are {':PATH, '.join(names_of_kinds)}:PATH."
            )
        sources[names_of_kinds[kind]] = source
    return sources


def paper_models(
    models: Sequence[str | Variant] = (), heads: Mapping[str, str | Path] | None = None
) -> dict[str, Variant]:
    """All models of the paper by its names: `MODELS`, with the user's own in their places, and with head files.

    Raises:
        InputError: a name is none of the paper's.
    """
    own = {spec.label: spec for spec in map(parse_variant, models)}
    check_names((*own, *(heads or {})))
    specs = {name: own.get(name) or parse_variant(f"{name}={text}") for name, text in MODELS.items()}
    for name, path in (heads or {}).items():
        spec = specs[name]
        specs[name] = Variant(spec.name, {**spec.options, "head": str(path)}, name)
    return specs


def check_names(given: Iterable[str]) -> None:
    """Refuse names that the paper has for no model and no data set."""
    for name in given:
        if name not in {**MODELS, **DATASETS}:
            raise InputError(f"{name!r} is none of the paper's names: {', '.join({**MODELS, **DATASETS})}.")


def group_of(table: int, dataset: str) -> str:
    """The metric, in `IMAGES`, that gives a table's numbers for a data set."""
    labels = set(names(table, "metric", dataset))
    return next(metric.name for metric in BUILT_IN if labels & {column.label for column in metric.columns})


def _plan(
    profile: str,
    specs: Mapping[str, str | Variant],
    sets: Mapping[str, ImageSet],
    counts: Mapping[str, int],
    chosen: Sequence[int] | None,
    protocol: str | CurveProtocol,
    notes: tuple[str, ...],
    seed: int = 0,
    fixed: frozenset[str] = frozenset(),
) -> BenchmarkPlan:
    named = profile == "paper"  # what stands in keeps its own name
    studies = []
    for table in chosen_tables(chosen):
        for dataset in names(table, "dataset"):
            group = group_of(table, dataset)
            images = sets[dataset]
            if dataset not in fixed and len(images) > counts[group]:
                images = images.sample(counts[group], seed)
            studies.append(
                Study(
                    Data(images.source, tuple(s.name for s in images), images.chosen, dataset if named else ""),
                    tuple(parse_variant(specs[name]) for name in names(table, "model", dataset) if name in specs),
                    tuple(parse_variant(f"{name}={METHODS[name]}") for name in names(table, "method", dataset)),
                    (group,),
                    "label" if dataset == "ImageNet-S" else "prediction",
                    table,
                )
            )
    studies = [_by_own_logit(study) for study in studies]
    return BenchmarkPlan(tuple(studies), curve_protocol(protocol), profile, notes)


def _by_own_logit(study: Study) -> Study:
    """The study with a class explained by its own logit, where a user's model has texts as classes.

    The paper speaks of class scores, and nowhere of a contrast; its CLIP columns seem to be fine-tuned models with
    linear heads. So its tables compare what it compared, although gradients of texts' own logits say little.
    """
    texts = any(classes_are_texts(spec) for spec in study.models)
    return replace(study, target=Logit(study.target)) if texts and isinstance(study.target, str) else study


def chosen_tables(chosen: Sequence[int] | None) -> list[int]:
    """Numbers of tables in their order; all by default.

    Raises:
        InputError: the paper has no table of a number.
    """
    wanted = tables() if not chosen else sorted(set(chosen))
    for table in wanted:
        if table not in tables():
            raise InputError(f"The paper has no table {table}; it has 1 to {tables()[-1]}.")
    return wanted
