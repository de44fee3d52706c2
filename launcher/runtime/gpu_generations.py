"""The table of GPU generations: each has a lock, an image and a profile of its name.

A new generation is an entry of `GENERATIONS`, `docker/locks/<name>.in` (`./invoke lock` makes the
lock of it) and `configs/profiles/<name>.yaml`, and nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass

from contract.precision_policy import BF16_FROM, Capability


@dataclass(frozen=True)
class GpuGeneration:
    """What a lock's wheels need, and which cards its profile is for.

    `cuda` and `min_driver`: NVIDIA's table of CUDA minor version compatibility. `kernels_from`: the
    oldest compute capability that the wheels hold kernels for (`torch.cuda.get_arch_list()`, held
    by tests/container). `cards_from`: the oldest card that the profile is for, whose architecture
    computes in `precision`.
    """

    name: str
    architecture: str
    cards_from: Capability
    precision: str
    cuda: str
    min_driver: int
    kernels_from: Capability


GENERATIONS: dict[str, GpuGeneration] = {
    generation.name: generation
    for generation in (
        GpuGeneration(
            name="rtx",
            architecture="Ampere",
            cards_from=BF16_FROM,
            precision="bf16",
            cuda="13.0",
            min_driver=580,
            kernels_from=(7, 5),
        ),
        GpuGeneration(
            name="t4",
            architecture="Turing",
            cards_from=(7, 5),
            precision="fp16",
            cuda="12.8",
            min_driver=525,
            kernels_from=(7, 5),
        ),
    )
}


def generation_for(driver: int, capability: Capability | None) -> GpuGeneration | None:
    """The newest generation whose profile runs on a card with this driver, or None.

    Where the capability is not known, the driver alone decides.
    """
    fitting = [
        generation
        for generation in GENERATIONS.values()
        if driver >= generation.min_driver
        and (capability is None or capability >= generation.cards_from)
    ]
    return max(fitting, key=lambda generation: generation.cards_from, default=None)


def architecture_of(capability: Capability) -> str:
    """` (Turing)` for 7.5, or an empty string where no generation begins there."""
    names = (g.architecture for g in GENERATIONS.values() if g.cards_from == capability)
    return next((f" ({name})" for name in names), "")
