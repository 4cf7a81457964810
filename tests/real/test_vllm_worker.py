"""What replaces functions of vLLM's worker on a CPU gives the numbers that vLLM's own functions give."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

import vivavoce.agents

pytestmark = pytest.mark.real

COMPARED = """
from types import SimpleNamespace
import torch
from vllm.lora.ops.torch_ops import lora_ops
from vllm.model_executor.layers.logits_processor import LogitsProcessor, UnquantizedEmbeddingMethod
own = {name: getattr(lora_ops, name) for name in ("bgmv_shrink", "bgmv_expand", "bgmv_expand_slice")}
own_head = LogitsProcessor._apply_head
import vivavoce_on_cpu as ours
assert lora_ops.bgmv_shrink is ours.bgmv_shrink and LogitsProcessor._apply_head is ours.apply_head

torch.manual_seed(0)
tokens, width, rank, out = 12, 64, 8, 96
inputs = torch.randn(tokens, width).bfloat16()
first, second = torch.randn(3, 1, rank, width).bfloat16(), torch.randn(3, 1, out, rank).bfloat16()
first[2] = second[2] = 0  # an adapter that leaves this layer alone
def product(functions, slots):
    buffer, output = torch.full((tokens, rank), 7.0), torch.ones(tokens, 2 * out).bfloat16()
    functions["bgmv_shrink"](inputs, first, buffer, slots, 0.5)
    functions["bgmv_expand_slice"](buffer, second, output, slots, out, out, True)
    written = torch.full((tokens, out + 4), 3.0)
    functions["bgmv_expand"](buffer, second, written, slots, False)
    return buffer, output.float(), written
for slots in ([1] * 12, [0, 1] * 6, [2] * 12, [0, 2, 1] * 4):
    slots = torch.tensor(slots)
    for theirs, mine in zip(product(own, slots), product(vars(ours), slots)):
        torch.testing.assert_close(mine, theirs, rtol=2e-2, atol=0.15)  # theirs rounds to bfloat16 on the way
no_adapter = torch.tensor([-1] * 6 + [1] * 6)
buffer, output, _ = product(vars(ours), no_adapter)
assert not buffer[:6].any() and (output[:6] == 1).all() and (output[6:, out:] != 1).any()

head = SimpleNamespace(weight=torch.randn(2500, width).bfloat16(), quant_method=UnquantizedEmbeddingMethod())
for bias in (None, torch.randn(2500).bfloat16()):
    processor = SimpleNamespace(head_dtype=torch.float32)
    mine, theirs = (function(processor, head, inputs, bias) for function in (ours.apply_head, own_head))
    assert torch.allclose(mine, theirs, atol=1e-5)
processor = SimpleNamespace(head_dtype=torch.bfloat16)
class Method(UnquantizedEmbeddingMethod):
    def apply(self, layer, x, bias=None): return "vLLM's own"
head.quant_method = Method()
assert ours.apply_head(processor, head, inputs, None) == "vLLM's own"
print("equal")
"""


def test_lora_and_the_float32_head_are_those_of_vllm(vllm_python: str) -> None:
    folder = Path(vivavoce.agents.__file__).parent / "vllm_worker"
    environment = {**os.environ, "PYTHONPATH": str(folder), "VLLM_NO_USAGE_STATS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [vllm_python, "-c", COMPARED], env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.stdout.endswith("equal\n"), done.stderr[-3000:]
