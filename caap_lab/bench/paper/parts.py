"""The parts of the paper's tables: data sets, models and numbers of images, and their names in this package."""

from collections.abc import Iterable

from caap_lab.bench.paper.published import names, tables
from caap_lab.errors import InputError
from caap_lab.metrics.catalogue import BUILT_IN

DATASETS = {
    "ImageNet-1K": "imagenet",
    "ImageNet-S": "imagenet-s",
    "ImageNet-Hard": "imagenet-hard",
    "Oxford-IIIT-Pet": "pet",
    "Food-101": "food101",
}
"""The paper's data sets, and their kinds in `cl.open_images`."""
OWN_CLASSES = ("Oxford-IIIT-Pet", "Food-101")
"""Data sets whose classes are not those of ImageNet-1k: they need their own classifiers, and none are published."""
MODELS = {
    "ViT-S/16": "vit_small_patch16_224.augreg_in21k_ft_in1k",
    "ViT-B/16": "vit_base_patch16_224.augreg2_in21k_ft_in1k",
    "ViT-L/16": "vit_large_patch16_224.augreg_in21k_ft_in1k",
    "CLIP-B/16": "vit_base_patch16_clip_224.openai_ft_in1k",
    "CLIP-L/14": "vit_large_patch14_clip_224.openai_ft_in1k",
    "CLIP-H/14": "vit_huge_patch14_clip_224.laion2b_ft_in12k_in1k",
    "DINOv2-S/14": "vit_small_patch14_dinov2.lvd142m:image_size=224,crop_pct=0.875",
    "DINOv2-B/14": "vit_base_patch14_dinov2.lvd142m:image_size=224,crop_pct=0.875",
    "DINOv2-L/14": "vit_large_patch14_dinov2.lvd142m:image_size=224,crop_pct=0.875",
    "DINOv2-G/14": "vit_giant_patch14_dinov2.lvd142m:image_size=224,crop_pct=0.875",
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
for the same data sets (LibraGrad), and torchvision's for the CNNs. DINOv2 also needs a head file, see `HEADS`.

Photos are resized and cropped as in each model's original evaluation. timm's tags specify that for all but DINOv2,
whose repository evaluates its linear heads on 224-pixel crops of photos whose shorter side is 256."""
HEADS = {f"DINOv2-{size}/14": f"dinov2_vit{size.lower()}14_linear_head.pth" for size in "SBLG"}
"""Models without a classifier, and the file of the dinov2 repository that contains one."""
HEADS_HOME = "github.com/facebookresearch/dinov2, under pretrained heads for image classification"
GROUPS = ("faithfulness", "localisation")
"""The metrics of the paper's tables that have different numbers of images."""
IMAGES = {"faithfulness": 500, "localisation": 128, "table 8": 250, "table 10": 100, "table 11": 100}
"""Images per data set in the paper, by metric, and by table if a table has its own number. It states 500 for its main
tables; the rest follows from its standard errors, see `caap_lab.bench.paper.implied_images`."""


def group_of(table: int, dataset: str) -> str:
    """The key of `IMAGES` for a table's data set: its metric, or the table."""
    labels = set(names(table, "metric", dataset))
    return next(metric.name for metric in BUILT_IN if labels & {column.label for column in metric.columns})


def chosen_tables(chosen: Iterable[int] | None) -> list[int]:
    """Table numbers in ascending order; all by default.

    Raises:
        InputError: the paper has no table of a given number.
    """
    wanted = sorted(set(chosen or ())) or tables()
    for table in wanted:
        if table not in tables():
            raise InputError(f"The paper has no table {table}; it has 1 to {tables()[-1]}.")
    return wanted
