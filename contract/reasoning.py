"""What a reasoning model thinks before its answer, and how it is told from the answer."""

from __future__ import annotations

# What families of models put around their reasoning.
_MARKERS = (
    ("<think>", "</think>"),
    ("<thinking>", "</thinking>"),
    ("<seed:think>", "</seed:think>"),
    ("[THINK]", "[/THINK]"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
)


def without_reasoning(text: str, *, opened: bool = False) -> str:
    """The text without the reasoning before it; empty where the reasoning never ends.

    A block counts where the text begins with it. Where a text has a block's end and not its
    beginning, the prompt opened the block, and the answer comes after that end. Markers further on
    belong to the answer. What is left has nothing more to take away.

    Args:
        text: an answer as the model gave it.
        opened: whether the prompt ended inside a block, so that a text without its end is
            reasoning only.
    """
    rest, cut = text, True
    while cut:
        rest, cut = _without_first_block(rest)
        opened = opened and not cut
    return "" if opened else rest


def mentions_reasoning(template: str) -> bool:
    """Whether a chat template has a place for reasoning."""
    return any(opening in template for opening, _ in _MARKERS)


def opens_reasoning(prompt: str) -> bool:
    """Whether a prompt ends inside a block of reasoning, which the model then continues."""
    return prompt.rstrip().endswith(tuple(opening for opening, _ in _MARKERS))


def _without_first_block(text: str) -> tuple[str, bool]:
    """The text behind its first block, and whether there was one."""
    start = text.lstrip()
    for opening, closing in _MARKERS:
        before, ended, after = start.partition(closing)
        if start.startswith(opening):
            return (after.lstrip() if ended else ""), True
        if ended and opening not in before:
            return after.lstrip(), True
    return text, False
