"""Mixed precision: which dtype of 16 bits convolutions and matrix products are computed in.

Weights, their updates, normalisation's statistics and the loss keep float32 (Micikevicius et al. 2018).
"""

from __future__ import annotations

import logging

import torch

log = logging.getLogger(__name__)

# What torch calls instructions that multiply bfloat16. Without them it converts every number, which costs more than the
# multiplication.
_CPU_FEATURES = ("avx512_bf16", "amx_bf16", "bf16")


def half_type(choice: str, device: torch.device) -> torch.dtype | None:
    """Return the dtype of 16 bits to compute in, or None for float32 throughout.

    Parameters
    ----------
    choice : str
        One of `config.MIXED_PRECISION`. auto: on GPUs, which all give the same result. on: also on CPUs with
        instructions for it; others compute in float32, so the same training gives other weights there.
    device : torch.device
    """
    if choice == "off" or (choice == "auto" and device.type == "cpu"):
        return None
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    capabilities = torch.cpu.get_capabilities()
    if any(capabilities.get(name) for name in _CPU_FEATURES):
        return torch.bfloat16
    log.warning("this CPU has no instructions for bfloat16 (%s): computing in float32", ", ".join(_CPU_FEATURES))
    return None
