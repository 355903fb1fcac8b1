"""Lets `import torchvision` succeed beside a CPU-only torch, as in AWS's containers; imported at each Python's start.

PyPI's torchvision is linked against the CUDA build of torch. Beside another one its import dies when it describes two
operators that are not there. Declaring these is enough, but for what calls them.
"""

from __future__ import annotations

import sys
from importlib.machinery import PathFinder
from typing import Any

_ARGUMENTS = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"


class _Finder:
    """Acts when torchvision is asked for, and finds nothing itself."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name == "torchvision" and (spec := PathFinder.find_spec(name)) is not None:
            sys.meta_path.remove(self)
            import torch

            operators: Any = PathFinder.find_spec("_C", spec.submodule_search_locations)
            try:
                torch.ops.load_library(operators.origin)
            except (AttributeError, OSError):
                self.declarations = torch.library.Library("torchvision", "DEF")
                for operator in ("nms", "qnms"):
                    self.declarations.define(operator + _ARGUMENTS)
                _kept.append(self)  # torch forgets what is garbage-collected


_kept: list[_Finder] = []
sys.meta_path.insert(0, _Finder())
