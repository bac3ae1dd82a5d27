"""Makes tests/data/small_{mistral,qwen2}: random models with 16-bit weights whose attention sees a sliding window, Mistral's in all
layers and Qwen2's in those from max_window_layers on, with logits by transformers in float32.

  small_X/    config.json, model.safetensors, golden.json
Usage: python3 tests/golden/make_small_windows.py    (needs torch, transformers)
"""

import json
import pathlib

import numpy as np
import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, MistralConfig, Qwen2Config

out = pathlib.Path(__file__).resolve().parent.parent / "data"
base = dict(hidden_size=32, intermediate_size=32, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2, vocab_size=48,
            bos_token_id=1, eos_token_id=2, max_position_embeddings=128, rms_norm_eps=1e-6, sliding_window=6,
            tie_word_embeddings=False)
rope = dict(rope_parameters=dict(rope_type="default", rope_theta=10000.0))
rng = np.random.default_rng(12)
ids = [1] + [int(i) for i in rng.integers(3, base["vocab_size"], 39)]

# What transformers builds, and what the config.json of a checkpoint says beside `base`.
families = {
    "mistral": (MistralConfig(**base, **rope, attn_implementation="eager"),
                dict(architectures=["MistralForCausalLM"], hidden_act="silu", rope_theta=10000.0)),
    "qwen2": (Qwen2Config(**base, **rope, use_sliding_window=True, max_window_layers=1, attn_implementation="eager"),
              dict(architectures=["Qwen2ForCausalLM"], hidden_act="silu", rope_theta=10000.0, use_sliding_window=True,
                   max_window_layers=1)),
}

for family, (config, written) in families.items():
    torch.manual_seed(5)
    model = AutoModelForCausalLM.from_config(config).eval()
    weights = {}
    for name, value in model.state_dict().items():
        mean = 1.0 if name.endswith("norm.weight") else 0.0
        weights[name] = (mean + (0.2 if value.dim() == 1 else 0.3) * torch.randn(value.shape)).to(torch.float16)
    model.load_state_dict({k: v.float() for k, v in weights.items()})
    with torch.no_grad():
        logits = model(torch.tensor([ids]), use_cache=False).logits[0]
    rows = {str(p): [round(float(x), 6) for x in logits[p]] for p in (0, 5, 6, 13, 39)}
    folder = out / f"small_{family}"
    folder.mkdir(parents=True, exist_ok=True)
    golden = {"note": "float16 weights, float32 arithmetic, transformers", "ids": ids, "logits": rows}
    (folder / "golden.json").write_text(json.dumps(golden) + "\n")
    (folder / "config.json").write_text(json.dumps(base | written | dict(model_type=family), indent=1) + "\n")
    save_file({k: v.contiguous() for k, v in weights.items()}, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "model.safetensors").chmod(0o644)
