"""Makes tests/data/small_{gemma,phi3,stablelm}: random models with 16-bit weights, in two source formats, with logits by
transformers in float32.

  small_X/         config.json in the older spelling, model.safetensors, golden.json
  small_X.gguf     the same weights by llama.cpp's conventions: Gemma's norms plus 1, Phi-3's projections fused
Usage: python3 tests/golden/make_small_families.py    (needs torch, transformers, gguf)
"""

import json
import pathlib

import gguf
import numpy as np
import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, GemmaConfig, Phi3Config, StableLmConfig

out = pathlib.Path(__file__).resolve().parent.parent / "data"
base = dict(hidden_size=32, intermediate_size=32, num_hidden_layers=2, num_attention_heads=4, vocab_size=48, bos_token_id=1,
            eos_token_id=2, pad_token_id=0)
short_factor = [1.0, 1.05, 1.2, 1.5, 2.25, 3.5]  # of 12 rotated dims
rng = np.random.default_rng(11)
ids = [1] + [int(i) for i in rng.integers(3, base["vocab_size"], 31)]

# What transformers builds, and the config.json of a checkpoint of the time.
families = {
    "gemma": (
        GemmaConfig(**base, num_key_value_heads=1, head_dim=16, max_position_embeddings=128, rms_norm_eps=1e-6,
                    hidden_act="gelu_pytorch_tanh", rope_parameters=dict(rope_type="default", rope_theta=10000.0)),
        dict(architectures=["GemmaForCausalLM"], num_key_value_heads=1, head_dim=16, max_position_embeddings=128,
             rms_norm_eps=1e-6, hidden_act="gelu", rope_theta=10000.0)),
    "stablelm": (
        StableLmConfig(**base, num_key_value_heads=2, max_position_embeddings=128, layer_norm_eps=1e-5, use_qkv_bias=True,
                       rope_parameters=dict(rope_type="default", rope_theta=10000.0, partial_rotary_factor=0.5)),
        dict(architectures=["StableLmForCausalLM"], num_key_value_heads=2, max_position_embeddings=128, layer_norm_eps=1e-5,
             hidden_act="silu", rope_theta=10000.0, partial_rotary_factor=0.5, use_qkv_bias=True, qk_layernorm=False,
             use_parallel_residual=False, tie_word_embeddings=False)),
    "phi3": (
        Phi3Config(**base | dict(num_attention_heads=2), num_key_value_heads=1, max_position_embeddings=128,
                   original_max_position_embeddings=32, rms_norm_eps=1e-5, sliding_window=24, tie_word_embeddings=False,
                   rope_parameters=dict(rope_type="longrope", rope_theta=10000.0, partial_rotary_factor=0.75,
                                        short_factor=short_factor, long_factor=[8.0] * 6,
                                        original_max_position_embeddings=32)),
        dict(architectures=["Phi3ForCausalLM"], num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=128,
             original_max_position_embeddings=32, rms_norm_eps=1e-5, hidden_act="silu", sliding_window=24,
             rope_theta=10000.0, partial_rotary_factor=0.75, tie_word_embeddings=False,
             rope_scaling=dict(type="longrope", short_factor=short_factor, long_factor=[8.0] * 6))),
}

names_gguf = {
    "model.embed_tokens": "token_embd", "lm_head": "output", "model.norm": "output_norm",
    "input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v", "self_attn.qkv_proj": "attn_qkv", "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.gate_up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
}


def write_gguf(family, config, weights):
    writer = gguf.GGUFWriter(out / f"small_{family}.gguf", family)
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    if family == "gemma":
        writer.add_layer_norm_rms_eps(config.rms_norm_eps)
        writer.add_key_length(head_dim)
        writer.add_value_length(head_dim)
    if family == "stablelm":
        writer.add_layer_norm_eps(config.layer_norm_eps)
        writer.add_rope_dimension_count(head_dim // 2)
        writer.add_parallel_residual(False)
    if family == "phi3":
        stretch = config.max_position_embeddings / 32
        writer.add_layer_norm_rms_eps(config.rms_norm_eps)
        writer.add_rope_dimension_count(12)
        writer.add_rope_scaling_orig_ctx_len(32)
        writer.add_rope_scaling_attn_factors(float(np.sqrt(1 + np.log(stretch) / np.log(32))))
        writer.add_sliding_window(config.sliding_window)
        writer.add_tensor("rope_factors_long.weight", np.full(6, 8.0, np.float32))
        writer.add_tensor("rope_factors_short.weight", np.array(short_factor, np.float32))
    for name, value in weights.items():
        stem, kind = name.rsplit(".", 1)
        layer = ""
        if stem.startswith("model.layers."):
            layer, stem = f"blk.{stem.split('.')[2]}.", stem.split(".", 3)[3]
        w = value.float().numpy()
        if family == "gemma" and stem.endswith("norm"):
            w = w + 1
        writer.add_tensor(f"{layer}{names_gguf[stem]}.{kind}", w.astype(np.float16) if w.ndim == 2 else w)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


for family, (config, written) in families.items():
    torch.manual_seed(5)
    model = AutoModelForCausalLM.from_config(config).eval()
    weights = {}
    for name, value in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        spread = 0.2 if value.dim() == 1 else 0.3
        mean = 1.0 if name.endswith("norm.weight") and family != "gemma" else 0.0
        weights[name] = (mean + spread * torch.randn(value.shape)).to(torch.float16)
    model.load_state_dict({k: v.float() for k, v in weights.items()}, strict=not config.tie_word_embeddings)
    model.tie_weights()
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0]
    rows = {str(p): [round(float(x), 6) for x in logits[p]] for p in (0, 13, 31)}
    folder = out / f"small_{family}"
    folder.mkdir(parents=True, exist_ok=True)
    golden = {"note": "float16 weights, float32 arithmetic, transformers", "ids": ids, "logits": rows}
    (folder / "golden.json").write_text(json.dumps(golden) + "\n")
    (folder / "config.json").write_text(json.dumps(base | written | dict(model_type=family), indent=1) + "\n")
    save_file({k: v.contiguous() for k, v in weights.items()}, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "model.safetensors").chmod(0o644)
    write_gguf(family, config, weights)
