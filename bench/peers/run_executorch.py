#!/usr/bin/env python3
"""ExecuTorch (PyPI) with XNNPACK on a known geometry with random weights: the export, and one measurement of it. compare.py calls
it with the Python of build/peers/executorch.

  run_executorch.py export NAME OUT.pte
  run_executorch.py run FILE.pte --prompt N --generated M --threads T --repetitions R      one line of JSON

Weights are 8da4w in groups of 32, the embedding in 8 bits, attention by ExecuTorch's own operator on a cache of float32: what its
documentation recommends for a CPU. The head is a linear layer like the others, in 4 bits. A prompt goes in whole; logits of its
last token come out."""
import json
import pathlib
import subprocess
import sys

import passes

LONGEST = 2080  # tokens: a prompt of 2,048 and what is decoded after it
PARAMETERS = {
    "smollm2-135m": {"dim": 576, "n_layers": 30, "n_heads": 9, "n_kv_heads": 3, "hidden_dim": 1536, "vocab_size": 49152,
                     "rope_theta": 100000.0},
    "tinyllama-1.1b": {"dim": 2048, "n_layers": 22, "n_heads": 32, "n_kv_heads": 4, "hidden_dim": 5632, "vocab_size": 32000,
                       "rope_theta": 10000.0},
}


def export(name: str, out: pathlib.Path) -> None:
    parameters = out.with_suffix(".json")
    parameters.write_text(json.dumps({**PARAMETERS[name], "norm_eps": 1e-5, "use_hf_rope": True}), encoding="utf-8")
    subprocess.run([sys.executable, "-m", "executorch.extension.llm.export.export_llm", "base.model_class=llama2",
                    f"base.params={parameters}", "model.use_kv_cache=True", "model.use_sdpa_with_kv_cache=True",
                    "quantization.qmode=8da4w", "quantization.group_size=32", "quantization.embedding_quantize='8,0'",
                    "backend.xnnpack.enabled=True", "backend.xnnpack.extended_ops=True", f"export.max_seq_length={LONGEST}",
                    f"export.max_context_length={LONGEST}", f"export.output_dir={out.parent}",
                    f"export.output_name={out.name}"], check=True, cwd=out.parent)


def load(file: str, threads: int):
    import torch
    from executorch.extension.llm.custom_ops import custom_ops  # noqa: F401  registers attention
    from executorch.extension.pybindings.portable_lib import _load_for_executorch, _unsafe_reset_threadpool
    from executorch.kernels import quantized  # noqa: F401  registers the 8-bit embedding

    _unsafe_reset_threadpool(threads)
    module = _load_for_executorch(file)
    tokens = torch.arange(LONGEST).reshape(1, -1) * 7919 % 30000

    def forward(begin: int, end: int) -> None:
        module.forward((tokens[:, begin:end], torch.tensor([begin], dtype=torch.long)))

    return forward


if __name__ == "__main__":
    passes.main(__doc__, PARAMETERS, export, load)
