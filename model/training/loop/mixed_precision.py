"""In which type of number a training computes what bears fewer digits: convolutions and matrix products.

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
    """Return the type of 16 bits to compute in, or None for float32 throughout.

    Parameters
    ----------
    choice : str
        One of `arguments.MIXED_PRECISION`. auto: on GPUs, which do it all alike. on: also on CPUs that have
        instructions for it; as some have and others have not, the same training would give other weights elsewhere.
    device : torch.device
    """
    if choice == "off":
        return None
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    if choice == "auto":
        return None
    capabilities = torch.cpu.get_capabilities()
    if any(capabilities.get(name) for name in _CPU_FEATURES):
        return torch.bfloat16
    log.warning("this CPU has no instructions for bfloat16 (%s): computing in float32", ", ".join(_CPU_FEATURES))
    return None
