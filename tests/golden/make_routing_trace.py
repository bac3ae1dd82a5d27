"""Records how a Mixtral-style model routes a text, in float32 with numpy alone: tests/data/routing/*.trace, and the figures of
docs/STREAMING.md (40 windows). The format is docs/STREAMING.md's. Guesses are the next layer's router on the hidden state before
this layer's experts. Times of computing are round figures of no device.

Usage: python3 tests/golden/make_routing_trace.py MODEL_FOLDER IDS WINDOWS OUT    (IDS: `acorn tokenize` of a text, into a file)
Prints the perplexity over the windows of 512 tokens and the share of right guesses.
  tests/data/routing/home_moe.trace: the 16-expert model of the home corpus, the first 2 windows of its mixed validation text
"""

import json
import pathlib
import struct
import sys

import numpy as np

TOKENS = 512
folder, windows, out_path = pathlib.Path(sys.argv[1]), int(sys.argv[3]), sys.argv[4]
config = json.loads((folder / "config.json").read_text())
layers, experts, top_k = config["num_hidden_layers"], config["num_local_experts"], config["num_experts_per_tok"]
heads, kv_heads, width = config["num_attention_heads"], config["num_key_value_heads"], config["hidden_size"]
head_dim = width // heads
all_ids = np.array(pathlib.Path(sys.argv[2]).read_text().split(), dtype=int)[: windows * TOKENS].reshape(windows, TOKENS)

weights = {}
for shard in sorted(folder.glob("*.safetensors")):
    data = shard.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    for name, entry in json.loads(data[8 : 8 + length]).items():
        if name == "__metadata__":
            continue
        begin, end = (8 + length + offset for offset in entry["data_offsets"])
        bits = np.frombuffer(data[begin:end], "<u2").astype(np.uint32) << 16  # bfloat16
        weights[name] = bits.view(np.float32).reshape(entry["shape"])

angles = np.outer(np.arange(TOKENS), config["rope_parameters"]["rope_theta"] ** (-np.arange(0, head_dim, 2) / head_dim))
cosine, sine = (np.concatenate([f(angles)] * 2, 1).astype(np.float32)[:, None] for f in (np.cos, np.sin))
mask = np.triu(np.full((TOKENS, TOKENS), -1e30, np.float32), 1)


def norm(x, name):
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + config["rms_norm_eps"]) * weights[name]


def rotate(x):
    half = head_dim // 2
    return x * cosine + np.concatenate([-x[..., half:], x[..., :half]], -1) * sine


def attention(x, prefix):
    def project(name, count):
        return (x @ weights[f"{prefix}self_attn.{name}_proj.weight"].T).reshape(TOKENS, count, head_dim)

    query, key, value = rotate(project("q", heads)), rotate(project("k", kv_heads)), project("v", kv_heads)
    key, value = (np.repeat(part, heads // kv_heads, 1) for part in (key, value))
    score = np.einsum("thd,shd->hts", query, key) / np.sqrt(head_dim) + mask
    score = np.exp(score - score.max(-1, keepdims=True))
    score /= score.sum(-1, keepdims=True)
    return np.einsum("hts,shd->thd", score, value).reshape(TOKENS, width) @ weights[prefix + "self_attn.o_proj.weight"].T


def route(x, layer):
    """Input of the experts, the chosen ones (ties to the lower index), their weights."""
    prefix = f"model.layers.{layer}."
    hidden = norm(x, prefix + "post_attention_layernorm.weight")
    logits = hidden @ weights[prefix + "block_sparse_moe.gate.weight"].T
    chosen = np.argsort(-logits, 1, kind="stable")[:, :top_k]
    share = np.exp(np.take_along_axis(logits, chosen, 1) - logits.max(1, keepdims=True))
    return hidden, chosen, share / share.sum(1, keepdims=True)


def moe(hidden, chosen, share, layer):
    out = np.zeros_like(hidden)
    for expert in range(experts):
        rows, places = np.where(chosen == expert)
        w1, w2, w3 = (weights[f"model.layers.{layer}.block_sparse_moe.experts.{expert}.w{i}.weight"] for i in (1, 2, 3))
        gate = hidden[rows] @ w1.T
        out[rows] += share[rows, places][:, None] * ((gate / (1 + np.exp(-gate)) * (hidden[rows] @ w3.T)) @ w2.T)
    return out


record_bytes = 112 << 10  # an expert of this model in 4 bits, rounded up to 16 KiB
loss, right = 0.0, []
with open(out_path, "wb") as out:
    out.write(b"acorntrc" + struct.pack("<6I", 1, 1, layers, experts, top_k, 0))
    out.write(struct.pack("<5Q", 40000, 8000, 30000, 4000, 100000))
    out.write(struct.pack("<I", record_bytes) * (layers * experts))
    for ids in all_ids:
        x = weights["model.embed_tokens.weight"][ids]
        choices = np.zeros((TOKENS, layers, top_k, 2), "<u2")
        guesses = np.full((TOKENS, layers, top_k), 65535, "<u2")
        for layer in range(layers):
            prefix = f"model.layers.{layer}."
            x = x + attention(norm(x, prefix + "input_layernorm.weight"), prefix)
            hidden, chosen, share = route(x, layer)
            choices[:, layer, :, 0], choices[:, layer, :, 1] = chosen, np.round(share * 32768)
            if layer > 0:
                right.append((chosen[:, :, None] == guesses[:, layer, None, :]).any(2).mean())
            if layer + 1 < layers:
                guesses[:, layer + 1] = route(x, layer + 1)[1]
            x = x + moe(hidden, chosen, share, layer)
        for token in range(TOKENS):
            out.write(struct.pack("<I", 1) + choices[token].tobytes() + guesses[token].tobytes())
        logits = norm(x, "model.norm.weight") @ weights["model.embed_tokens.weight"].T
        top = logits.max(1)
        loss += (top + np.log(np.exp(logits - top[:, None]).sum(1)))[:-1].sum() - logits[np.arange(TOKENS - 1), ids[1:]].sum()
print("perplexity", np.exp(loss / (windows * (TOKENS - 1))), "right guesses", np.mean(right))
