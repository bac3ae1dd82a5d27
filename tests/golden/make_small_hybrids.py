"""Makes tests/data/small_{mamba2,bamba,granite_h,granite_h_dense}: random state-space models and hybrids with 16-bit weights,
in two source formats, with logits by transformers in float32.

  small_X/         config.json (as transformers 4 writes it), model.safetensors, golden.json
  small_X.gguf     the same weights by llama.cpp's conventions: A for A_log, q and k in rotary pairs, fused FFNs apart
Usage: python3 tests/golden/make_small_hybrids.py    (needs torch, transformers, gguf)
"""

import json
import pathlib

import gguf
import numpy as np
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, BambaConfig, GraniteMoeHybridConfig, Mamba2Config

out = pathlib.Path(__file__).resolve().parent.parent / "data"
base = dict(vocab_size=48, hidden_size=32, bos_token_id=1, eos_token_id=2, pad_token_id=0, hidden_act="silu",
            tie_word_embeddings=False)
mixer = dict(mamba_n_heads=8, mamba_d_head=8, mamba_d_state=16, mamba_d_conv=4, mamba_expand=2, mamba_conv_bias=True,
             mamba_proj_bias=False, mamba_chunk_size=8)
attention = dict(num_attention_heads=4, num_key_value_heads=2, attention_bias=False, max_position_embeddings=128,
                 rope_theta=10000.0)
granite = base | mixer | attention | dict(
    mamba_n_groups=1, num_hidden_layers=3, intermediate_size=24, shared_intermediate_size=40, num_experts_per_tok=2,
    embedding_multiplier=3.0, residual_multiplier=0.5, attention_multiplier=0.25, logits_scaling=2.0, rms_norm_eps=1e-5)
families = {
    "mamba2": (Mamba2Config, base | dict(num_hidden_layers=2, num_heads=8, head_dim=8, state_size=16, n_groups=2, conv_kernel=4,
                                         expand=2, use_conv_bias=True, use_bias=False, layer_norm_epsilon=1e-5, chunk_size=8,
                                         time_step_limit=[0.0, float("inf")])),
    "bamba": (BambaConfig, base | mixer | attention | dict(
        mamba_n_groups=2, num_hidden_layers=3, attn_layer_indices=[1], intermediate_size=40, rms_norm_eps=1e-5,
        attn_rotary_emb=4, mlp_bias=False)),
    "granite_h": (GraniteMoeHybridConfig, granite | dict(
        num_local_experts=4, layer_types=["mamba", "attention", "mamba"], position_embedding_type="nope")),
    "granite_h_dense": (GraniteMoeHybridConfig, granite | dict(
        num_local_experts=0, layer_types=["attention", "mamba", "mamba"], position_embedding_type="rope",
        tie_word_embeddings=True)),
}
rng = np.random.default_rng(31)
ids = [1] + [int(i) for i in rng.integers(3, base["vocab_size"], 31)]

names_gguf = {
    "backbone.embeddings": "token_embd", "backbone.norm_f": "output_norm", "norm": "attn_norm", "model.embed_tokens": "token_embd",
    "model.norm": "output_norm", "model.final_layernorm": "output_norm", "lm_head": "output", "input_layernorm": "attn_norm",
    "pre_ff_layernorm": "ffn_norm", "post_attention_layernorm": "ffn_norm", "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
    "feed_forward.gate_proj": "ffn_gate", "feed_forward.up_proj": "ffn_up", "feed_forward.down_proj": "ffn_down",
    "block_sparse_moe.router.layer": "ffn_gate_inp", "block_sparse_moe.output_linear": "ffn_down_exps",
    "mixer.in_proj": "ssm_in", "mixer.conv1d": "ssm_conv1d", "mixer.norm": "ssm_norm", "mixer.out_proj": "ssm_out",
}


def gguf_tensors(name, value, c):
    stem, kind = name.rsplit(".", 1)
    layer = ""
    for prefix in ("model.layers.", "backbone.layers."):
        if stem.startswith(prefix):
            number, stem = stem[len(prefix):].split(".", 1)
            layer = f"blk.{number}."
    stem = stem.replace("mamba", "mixer")
    groups = c.get("n_groups", c.get("mamba_n_groups"))
    if stem == "mixer" and kind == "A_log":
        return [(layer + "ssm_a", -np.exp(value.astype(np.float32))[:, None])]
    if stem == "mixer" and kind == "D":
        return [(layer + "ssm_d", value[:, None])]
    if stem == "mixer" and kind == "dt_bias":
        return [(layer + "ssm_dt.bias", value)]
    if stem == "block_sparse_moe.input_linear":
        return [(f"{layer}ffn_{n}_exps.weight", part) for n, part in zip(("gate", "up"), np.split(value, 2, 1))]
    suffix = "_shexp" if c.get("num_local_experts") else ""
    if stem == "shared_mlp.input_linear":
        return [(f"{layer}ffn_{n}{suffix}.weight", part) for n, part in zip(("gate", "up"), np.split(value, 2))]
    if stem == "shared_mlp.output_linear":
        return [(f"{layer}ffn_down{suffix}.weight", value)]
    if stem == "mixer.conv1d" and kind == "weight":
        value = value[:, 0]
    if stem == "mixer.norm":
        value = value.reshape(groups, -1)
    if stem in ("self_attn.q_proj", "self_attn.k_proj"):
        heads = c["num_attention_heads" if stem == "self_attn.q_proj" else "num_key_value_heads"]
        value = value.reshape(heads, 2, -1, value.shape[1]).swapaxes(1, 2).reshape(value.shape)
    return [(f"{layer}{names_gguf[stem]}.{kind}", value)]


def write_gguf(family, weights, c):
    writer = gguf.GGUFWriter(out / f"small_{family}.gguf", "mamba2" if family == "mamba2" else "granitehybrid")
    get = lambda *keys: next(c[key] for key in keys if key in c)
    layers = c["num_hidden_layers"]
    writer.add_context_length(c.get("max_position_embeddings", 2**20))
    writer.add_embedding_length(c["hidden_size"])
    writer.add_feed_forward_length(c.get("intermediate_size", 0))
    writer.add_head_count(c.get("num_attention_heads", 0))
    writer.add_block_count(layers)
    writer.add_ssm_conv_kernel(get("conv_kernel", "mamba_d_conv"))
    writer.add_ssm_inner_size(2 * c["hidden_size"])
    writer.add_ssm_state_size(get("state_size", "mamba_d_state"))
    writer.add_ssm_time_step_rank(get("num_heads", "mamba_n_heads"))
    writer.add_ssm_group_count(get("n_groups", "mamba_n_groups"))
    writer.add_layer_norm_rms_eps(get("layer_norm_epsilon", "rms_norm_eps"))
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    if family != "mamba2":
        kinds = c.get("layer_types") or ["attention" if i in c["attn_layer_indices"] else "mamba" for i in range(layers)]
        writer.add_head_count_kv([c["num_key_value_heads"] if kind == "attention" else 0 for kind in kinds])
        writer.add_rope_freq_base(c["rope_theta"])
        writer.add_rope_dimension_count(c.get("attn_rotary_emb", 8))
        writer.add_rope_scaling_finetuned(c.get("position_embedding_type", "rope") == "rope")
    if "logits_scaling" in c:
        writer.add_attention_scale(c["attention_multiplier"])
        writer.add_embedding_scale(c["embedding_multiplier"])
        writer.add_residual_scale(c["residual_multiplier"])
        writer.add_logit_scale(c["logits_scaling"])
        writer.add_expert_shared_feed_forward_length(c["shared_intermediate_size"])
    if c.get("num_local_experts"):
        writer.add_expert_count(c["num_local_experts"])
        writer.add_expert_used_count(c["num_experts_per_tok"])
    for name, value in weights.items():
        for gguf_name, tensor in gguf_tensors(name, value.numpy(), c):
            is_small = tensor.ndim < 2 or "ssm_" in gguf_name and tensor.shape[-1] < 32 or "ssm_norm" in gguf_name
            is_small = is_small or "gate_inp" in gguf_name
            writer.add_tensor(gguf_name, np.ascontiguousarray(tensor.astype(np.float32) if is_small else tensor))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


for family, (kind, options) in families.items():
    torch.manual_seed(7)
    model = AutoModelForCausalLM.from_config(kind(**options)).eval().float()
    with torch.no_grad():
        for name, value in model.named_parameters():
            spread = 0.2 if value.dim() == 1 else 0.3
            mean = 0.5 if name.endswith("A_log") else 1.0 if value.dim() == 1 and "bias" not in name else 0.0
            value.copy_((mean + spread * torch.randn(value.shape)).to(torch.float16))
        logits = model(torch.tensor([ids]), use_cache=False).logits[0]
    folder = out / f"small_{family}"
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)  # by the names of the hub
    (folder / "generation_config.json").unlink(missing_ok=True)
    weights = {name: value.to(torch.float16) for name, value in load_file(folder / "model.safetensors").items()}
    save_file({name: value.contiguous() for name, value in weights.items()}, folder / "model.safetensors",
              metadata={"format": "pt"})
    (folder / "model.safetensors").chmod(0o644)
    rows = {str(p): [round(float(x), 6) for x in logits[p]] for p in (0, 13, 31)}
    golden = {"note": "float16 weights, float32 arithmetic, transformers", "ids": ids, "logits": rows}
    (folder / "golden.json").write_text(json.dumps(golden) + "\n")
    architecture = dict(architectures=[type(model).__name__], model_type=kind.model_type)
    (folder / "config.json").write_text(json.dumps(options | architecture, indent=1) + "\n")
    write_gguf(family, weights, options)
