"""Makes tests/data/small_llama*: a cut-down copy of a random Llama of the shared models in three source formats, with
logits by transformers in float32.

  small_llama/        config.json in the older spelling, two bfloat16 shards with an index, golden.json
  small_llama.gguf    Q8_0 matrices, q and k rows in rotary pairs, golden in small_llama_gguf.json
  small_llama.bin     llama2.c version 0, golden in small_llama_bin.json (its rotary theta and epsilon are fixed)
Usage: python3 tests/golden/make_small_llama.py SHARED/models/tiny/llama    (needs torch, transformers, gguf)
"""

import json
import pathlib
import struct
import sys

import gguf
import numpy as np
import torch
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM

LAYERS, VOCAB, FFN = 2, 128, 96
out = pathlib.Path(__file__).resolve().parent.parent / "data"
source = LlamaForCausalLM.from_pretrained(sys.argv[1], torch_dtype=torch.float32)
cut = {}
for name, value in source.state_dict().items():
    if name.startswith("model.layers.") and int(name.split(".")[2]) >= LAYERS:
        continue
    if "embed_tokens" in name or "lm_head" in name:
        value = value[:VOCAB]
    if "gate_proj" in name or "up_proj" in name:
        value = value[:FFN]
    if "down_proj" in name:
        value = value[:, :FFN]
    cut[name] = value.to(torch.bfloat16).clone().contiguous()

old = source.config
base = dict(hidden_size=old.hidden_size, intermediate_size=FFN, num_hidden_layers=LAYERS,
            num_attention_heads=old.num_attention_heads, num_key_value_heads=old.num_key_value_heads,
            head_dim=old.head_dim, vocab_size=VOCAB, max_position_embeddings=256, bos_token_id=1, eos_token_id=2)
heads, kv_heads, dim = base["num_attention_heads"], base["num_key_value_heads"], base["head_dim"]
rng = np.random.default_rng(7)
ids = [1] + [int(i) for i in rng.integers(3, VOCAB, 31)]


def golden(path, weights, eps, theta, note):
    config = LlamaConfig(**base, rms_norm_eps=eps, rope_parameters={"rope_type": "default", "rope_theta": theta},
                         tie_word_embeddings=False)
    model = LlamaForCausalLM(config).eval()
    model.load_state_dict({k: v.float() for k, v in weights.items()})
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0]
    rows = {str(p): [round(float(x), 6) for x in logits[p]] for p in (0, 13, 31)}
    path.write_text(json.dumps({"note": note, "ids": ids, "logits": rows}) + "\n")


folder = out / "small_llama"
folder.mkdir(parents=True, exist_ok=True)
golden(folder / "golden.json", cut, 1e-5, 20000.0, "bfloat16 weights, float32 arithmetic, transformers")
(folder / "config.json").write_text(json.dumps(dict(
    architectures=["LlamaForCausalLM"], model_type="llama", hidden_act="silu", rms_norm_eps=1e-5, rope_theta=20000.0,
    rope_scaling=None, tie_word_embeddings=False, torch_dtype="bfloat16", **base), indent=1) + "\n")
names = sorted(cut)
shards = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
weight_map = {}
for shard, members in shards.items():
    save_file({n: cut[n] for n in members}, folder / shard, metadata={"format": "pt"})
    (folder / shard).chmod(0o644)
    weight_map.update({n: shard for n in members})
(folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}, indent=1) + "\n")


def pairs(w, count):  # halves to rotary pairs
    return w.reshape(count, 2, dim // 2, -1).transpose(0, 2, 1, 3).reshape(w.shape)


names_gguf = {
    "model.embed_tokens": "token_embd", "lm_head": "output", "model.norm": "output_norm",
    "input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output", "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
}
writer = gguf.GGUFWriter(out / "small_llama.gguf", "llama")
writer.add_context_length(256)
writer.add_embedding_length(base["hidden_size"])
writer.add_block_count(LAYERS)
writer.add_feed_forward_length(FFN)
writer.add_head_count(heads)
writer.add_head_count_kv(kv_heads)
writer.add_rope_dimension_count(dim)
writer.add_rope_freq_base(20000.0)
writer.add_layer_norm_rms_eps(1e-5)
writer.add_bos_token_id(1)
writer.add_eos_token_id(2)
stored = {}
for name, value in cut.items():
    w = value.float().numpy()
    stem = name.removesuffix(".weight")
    layer = ""
    if stem.startswith("model.layers."):
        layer, stem = f"blk.{stem.split('.')[2]}.", stem.split(".", 3)[3]
    count = heads if "q_proj" in name else kv_heads if "k_proj" in name else 0
    w = pairs(w, count) if count else w
    kind = gguf.GGMLQuantizationType.Q8_0 if w.ndim == 2 else gguf.GGMLQuantizationType.F32
    raw = gguf.quants.quantize(w, kind)
    writer.add_tensor(layer + names_gguf[stem] + ".weight", raw, raw_dtype=kind)
    back = gguf.quants.dequantize(raw, kind).reshape(w.shape)
    if count:  # pairs to halves
        back = back.reshape(count, dim // 2, 2, -1).transpose(0, 2, 1, 3).reshape(back.shape)
    stored[name] = torch.from_numpy(np.ascontiguousarray(back))
writer.write_header_to_file()
writer.write_kv_data_to_file()
writer.write_tensors_to_file()
writer.close()
golden(out / "small_llama_gguf.json", stored, 1e-5, 20000.0, "Q8_0 weights dequantised by gguf-py, transformers")

# llama2.c: one layer with a narrow FFN, tied, so that the float32 file stays small.
FFN = 32
one = {k: v.float() for k, v in cut.items() if not k.startswith("model.layers.1.")}
for name in ("gate_proj", "up_proj"):
    one[f"model.layers.0.mlp.{name}.weight"] = one[f"model.layers.0.mlp.{name}.weight"][:FFN]
one["model.layers.0.mlp.down_proj.weight"] = one["model.layers.0.mlp.down_proj.weight"][:, :FFN]
base["intermediate_size"] = FFN
one["lm_head.weight"] = one["model.embed_tokens.weight"]
base["num_hidden_layers"] = 1
golden(out / "small_llama_bin.json", one, 1e-5, 10000.0, "llama2.c version 0, transformers")
block = "model.layers.0."
order = ["model.embed_tokens", block + "input_layernorm", block + "self_attn.q_proj", block + "self_attn.k_proj",
         block + "self_attn.v_proj", block + "self_attn.o_proj", block + "post_attention_layernorm",
         block + "mlp.gate_proj", block + "mlp.down_proj", block + "mlp.up_proj", "model.norm"]
with open(out / "small_llama.bin", "wb") as file:
    file.write(struct.pack("<7i", base["hidden_size"], FFN, 1, heads, kv_heads, VOCAB, 16))
    for name in order:
        w = one[name + ".weight"].numpy()
        count = heads if "q_proj" in name else kv_heads if "k_proj" in name else 0
        file.write((pairs(w, count) if count else w).astype("<f4").tobytes())
    file.write(bytes(2 * 4 * 16 * (dim // 2)))
