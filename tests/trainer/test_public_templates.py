"""Every public chat template is right or refused, and none is silently wrong."""

import pytest

from tests import public_templates
from tests.public_templates import CONVERSATIONS, DOCUMENT

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def judged(tools):
    # It asserts of everything that it calls right what right means.
    return public_templates.judge_all()


def test_the_document_says_what_is_found(judged):
    assert len(judged) > 130
    assert DOCUMENT.read_text(encoding="utf-8") == public_templates.document(judged), (
        "write it anew: python -m tests.public_templates"
    )


# Of each family, what its template knows; what is missing here is refused.
TEXT = ("one turn", "several turns", "system prompt")
FAMILIES = {
    ("llama.cpp", "Qwen-Qwen2.5-7B-Instruct"): (*TEXT, "tools"),
    ("llama.cpp", "Qwen-Qwen3-0.6B"): tuple(CONVERSATIONS),
    ("llama.cpp", "Qwen3.5-4B"): tuple(CONVERSATIONS),
    ("llama.cpp", "Qwen-QwQ-32B"): tuple(CONVERSATIONS),
    ("TRL", "qwen3_instruct_2507"): (*TEXT, "tools"),
    ("TRL", "llama3"): TEXT,
    ("llama.cpp", "meta-llama-Llama-3.1-8B-Instruct"): (*TEXT, "tools"),
    ("llama.cpp", "meta-llama-Llama-3.2-3B-Instruct"): (*TEXT, "tools"),
    ("llama.cpp", "meta-llama-Llama-3.3-70B-Instruct"): (*TEXT, "tools"),
    ("llama.cpp", "mistralai-Mistral-Nemo-Instruct-2407"): (*TEXT, "tools"),
    ("llama.cpp", "Mistral-Small-3.2-24B-Instruct-2506"): (*TEXT, "tools"),
    ("llama.cpp", "google-gemma-2-2b-it"): ("one turn", "several turns"),
    ("TRL", "gemma3"): TEXT,
    ("llama.cpp", "microsoft-Phi-3.5-mini-instruct"): TEXT,
    ("llama.cpp", "HuggingFaceTB-SmolLM3-3B"): (*TEXT, "reasoning"),
    ("llama.cpp", "ibm-granite-granite-3.3-2B-Instruct"): (*TEXT, "reasoning"),
    ("llama.cpp", "ibm-granite-granite-4.0"): (*TEXT, "tools"),
    ("llama.cpp", "deepseek-ai-DeepSeek-R1-Distill-Qwen-32B"): (*TEXT, "reasoning"),
    ("llama.cpp", "deepseek-ai-DeepSeek-R1-Distill-Llama-8B"): (*TEXT, "reasoning"),
}


def test_the_families_that_people_use_are_right(judged):
    right = {
        of: tuple(name for name, found in judged[of].items() if found.reason is None)
        for of in FAMILIES
    }
    assert right == FAMILIES


# In no package; in our words, the forms of Phi-4's and SmolLM2's.
PHI_4 = (
    "{% for m in messages %}<|im_start|>{{ m.role }}<|im_sep|>{{ m.content }}<|im_end|>"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant<|im_sep|>{% endif %}"
)
SMOLLM2 = (
    "{% for m in messages %}{% if loop.first and m.role != 'system' %}"
    "<|im_start|>system\nYou help.<|im_end|>\n{% endif %}"
    "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.mark.parametrize("template", [PHI_4, SMOLLM2])
def test_two_more_forms_are_right(template, untrained, tools):
    found = public_templates.judge(template, untrained, tools)
    assert [found[name].reason for name in TEXT] == [None] * 3
