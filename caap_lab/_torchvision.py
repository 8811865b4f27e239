"""Makes ``import torchvision`` work with a CPU-only torch.

torchvision's wheel is compiled against CUDA; with a CPU build of torch its compiled operators do not load, and the
import fails with ``operator torchvision::nms does not exist``, which also breaks timm. Nothing here calls these
operators, so declaring their schemas is enough. It has to happen just before torchvision is first imported, by any
module: hence a finder, which costs nothing until then. If the operators load, nothing is declared.

A script may import timm or torchvision before caap_lab. So the wheel puts this file into site-packages a second time,
as ``caap_lab_torchvision.py``, with a ``.pth`` file that lets Python install the finder when it starts. That is why it
does not import caap_lab, and little else.
"""

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.util import find_spec
from types import ModuleType

_SCHEMAS = tuple(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor" for name in ("nms", "qnms"))
_libraries: list[object] = []  # a torch Library lives only as long as it is referenced


class _BeforeTorchvision(MetaPathFinder):
    """Finds nothing itself; declares missing operators when torchvision is about to be imported."""

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None) -> None:
        if fullname == "torchvision":
            sys.meta_path.remove(self)
            declare_missing_operators()


def install() -> None:
    """Watch for the first import of torchvision, unless it has happened."""
    if "torchvision" not in sys.modules and not any(isinstance(f, _BeforeTorchvision) for f in sys.meta_path):
        sys.meta_path.insert(0, _BeforeTorchvision())


def declare_missing_operators() -> None:
    """Declare torchvision's two operator schemas if its compiled library does not load."""
    from pathlib import Path

    import torch

    spec = find_spec("torchvision")
    if spec is None or spec.origin is None:
        return
    for library in Path(spec.origin).parent.glob("_C*.so"):
        try:
            torch.ops.load_library(library)
        except OSError:
            break  # built for a CUDA that is not installed
    try:
        _ = torch.ops.torchvision.nms
    except AttributeError:
        declared = torch.library.Library("torchvision", "DEF")
        for schema in _SCHEMAS:
            declared.define(schema)
        _libraries.append(declared)
