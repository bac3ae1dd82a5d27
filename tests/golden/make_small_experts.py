"""Makes tests/data/small_{mixtral,qwen2_moe,qwen3_moe,olmoe}: random mixtures of experts with 16-bit weights, in two source
formats, with logits by the plain float64 arithmetic below.

  small_X/         config.json, model.safetensors (qwen3_moe: experts stacked, as transformers 5 has them in memory), golden.json
  small_X.gguf     the same weights by llama.cpp's conventions: experts stacked, Mixtral's q and k in rotary pairs
Usage: python3 tests/golden/make_small_experts.py            (needs numpy, safetensors, gguf)
       python3 tests/golden/make_small_experts.py FOLDER...  compares the arithmetic with FOLDER/golden.json by transformers
"""

import json
import pathlib
import sys

import numpy as np
from safetensors.numpy import load_file, save_file

out = pathlib.Path(__file__).resolve().parent.parent / "data"
base = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, vocab_size=48, bos_token_id=1,
            eos_token_id=2, pad_token_id=0, max_position_embeddings=128, hidden_act="silu", tie_word_embeddings=False)
families = {
    "mixtral": dict(intermediate_size=24, num_local_experts=4, num_experts_per_tok=2, rms_norm_eps=1e-5, rope_theta=1e6,
                    sliding_window=None),
    "qwen2_moe": dict(intermediate_size=40, num_experts=5, num_experts_per_tok=2, moe_intermediate_size=16,
                      shared_expert_intermediate_size=24, norm_topk_prob=False, decoder_sparse_step=1, mlp_only_layers=[0],
                      rms_norm_eps=1e-6, rope_theta=10000.0, use_sliding_window=False, sliding_window=64,
                      max_window_layers=1),
    "qwen3_moe": dict(head_dim=16, intermediate_size=40, num_local_experts=6, num_experts_per_tok=3, moe_intermediate_size=16,
                      norm_topk_prob=True, decoder_sparse_step=1, mlp_only_layers=[], rms_norm_eps=1e-6,
                      rope_parameters=dict(rope_type="default", rope_theta=10000.0), use_sliding_window=False),
    "olmoe": dict(intermediate_size=24, num_experts=4, num_experts_per_tok=2, norm_topk_prob=False, clip_qkv=1.5,
                  rms_norm_eps=1e-5, rope_theta=10000.0),
}
rng = np.random.default_rng(21)
ids = [1] + [int(i) for i in rng.integers(3, base["vocab_size"], 31)]


def rms(x, gain, eps):
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + eps) * gain


def silu(x):
    return x / (1 + np.exp(-x))


def rotate(x, theta):  # [t, heads, dim]
    half = x.shape[-1] // 2
    angle = np.arange(len(x))[:, None] * theta ** (-np.arange(half) / half)
    cos, sin = np.cos(angle)[:, None], np.sin(angle)[:, None]
    a, b = x[..., :half], x[..., half:]
    return np.concatenate([a * cos - b * sin, b * cos + a * sin], -1)


def attention(x, layer, w, c):
    heads, kv_heads = c["num_attention_heads"], c["num_key_value_heads"]
    dim = c.get("head_dim") or c["hidden_size"] // heads
    q, k, v = (x @ w[f"{layer}self_attn.{n}_proj.weight"].T + w.get(f"{layer}self_attn.{n}_proj.bias", 0) for n in "qkv")
    per_head = c["model_type"] == "qwen3_moe"
    if per_head:
        q, k = q.reshape(-1, heads, dim), k.reshape(-1, kv_heads, dim)
    if f"{layer}self_attn.q_norm.weight" in w:
        q = rms(q, w[f"{layer}self_attn.q_norm.weight"], c["rms_norm_eps"])
        k = rms(k, w[f"{layer}self_attn.k_norm.weight"], c["rms_norm_eps"])
    if c.get("clip_qkv"):
        q, k, v = (np.clip(y, -c["clip_qkv"], c["clip_qkv"]) for y in (q, k, v))
    theta = c["rope_theta"] if "rope_theta" in c else c["rope_parameters"]["rope_theta"]
    q, k = rotate(q.reshape(-1, heads, dim), theta), rotate(k.reshape(-1, kv_heads, dim), theta)
    v = v.reshape(-1, kv_heads, dim)
    k, v = (np.repeat(y, heads // kv_heads, 1) for y in (k, v))
    scores = np.einsum("thd,shd->hts", q, k) / np.sqrt(dim)
    scores = np.where(np.tri(len(x), dtype=bool), scores, -np.inf)
    p = np.exp(scores - scores.max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)
    return np.einsum("hts,shd->thd", p, v).reshape(len(x), -1) @ w[f"{layer}self_attn.o_proj.weight"].T


def glu(x, gate, up, down):
    return (silu(x @ gate.T) * (x @ up.T)) @ down.T


def names(family, layer, expert):  # of an expert's gate, up and down
    if family == "mixtral":
        return [f"{layer}block_sparse_moe.experts.{expert}.w{i}.weight" for i in (1, 3, 2)]
    return [f"{layer}mlp.experts.{expert}.{n}_proj.weight" for n in ("gate", "up", "down")]


def ffn(x, layer, w, c):
    family = c["model_type"]
    if f"{layer}mlp.gate_proj.weight" in w:
        return glu(x, *(w[f"{layer}mlp.{n}_proj.weight"] for n in ("gate", "up", "down")))
    logits = x @ w[f"{layer}{'block_sparse_moe' if family == 'mixtral' else 'mlp'}.gate.weight"].T
    p = np.exp(logits - logits.max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)
    y = np.zeros_like(x)
    for t in range(len(x)):
        chosen = np.argsort(-p[t], kind="stable")[:c["num_experts_per_tok"]]
        whole = p[t, chosen].sum() if c.get("norm_topk_prob", family == "mixtral") else 1
        for e in chosen:
            y[t] += p[t, e] / whole * glu(x[t], *(w[n] for n in names(family, layer, e)))
    if f"{layer}mlp.shared_expert_gate.weight" in w:
        shared = glu(x, *(w[f"{layer}mlp.shared_expert.{n}_proj.weight"] for n in ("gate", "up", "down")))
        y += shared / (1 + np.exp(-x @ w[f"{layer}mlp.shared_expert_gate.weight"].T))
    return y


def run(tokens, w, c):
    w = {name: value.astype(np.float64) for name, value in w.items()}
    x = w["model.embed_tokens.weight"][tokens]
    for i in range(c["num_hidden_layers"]):
        layer = f"model.layers.{i}."
        x = x + attention(rms(x, w[layer + "input_layernorm.weight"], c["rms_norm_eps"]), layer, w, c)
        x = x + ffn(rms(x, w[layer + "post_attention_layernorm.weight"], c["rms_norm_eps"]), layer, w, c)
    return rms(x, w["model.norm.weight"], c["rms_norm_eps"]) @ w["lm_head.weight"].T


def shapes(c):
    family, hidden, heads = c["model_type"], c["hidden_size"], c["num_attention_heads"]
    dim = c.get("head_dim", hidden // heads)
    widths = dict(q=heads * dim, k=c["num_key_value_heads"] * dim, v=c["num_key_value_heads"] * dim)
    experts = c.get("num_experts", c.get("num_local_experts"))
    width = c.get("moe_intermediate_size", c["intermediate_size"])
    yield from ((n, (c["vocab_size"], hidden)) for n in ("model.embed_tokens.weight", "lm_head.weight"))
    yield "model.norm.weight", (hidden,)
    for i in range(c["num_hidden_layers"]):
        layer = f"model.layers.{i}."
        yield layer + "input_layernorm.weight", (hidden,)
        yield layer + "post_attention_layernorm.weight", (hidden,)
        for n, rows in widths.items():
            yield f"{layer}self_attn.{n}_proj.weight", (rows, hidden)
            if family == "qwen2_moe":
                yield f"{layer}self_attn.{n}_proj.bias", (rows,)
            if family in ("qwen3_moe", "olmoe") and n != "v":
                yield f"{layer}self_attn.{n}_norm.weight", (rows if family == "olmoe" else dim,)
        yield layer + "self_attn.o_proj.weight", (hidden, heads * dim)
        if i in c.get("mlp_only_layers", []):
            for n in ("gate", "up", "down"):
                rows, columns = (hidden, c["intermediate_size"]) if n == "down" else (c["intermediate_size"], hidden)
                yield f"{layer}mlp.{n}_proj.weight", (rows, columns)
            continue
        yield f"{layer}{'block_sparse_moe' if family == 'mixtral' else 'mlp'}.gate.weight", (experts, hidden)
        for e in range(experts):
            for n, shape in zip(names(family, layer, e), ((width, hidden), (width, hidden), (hidden, width))):
                yield n, shape
        if family == "qwen2_moe":
            shared = c["shared_expert_intermediate_size"]
            for n, shape in (("gate", (shared, hidden)), ("up", (shared, hidden)), ("down", (hidden, shared))):
                yield f"{layer}mlp.shared_expert.{n}_proj.weight", shape
            yield layer + "mlp.shared_expert_gate.weight", (1, hidden)


def stacked(w, c, fuse):  # experts in one tensor for each layer: gate and up apart or one below the other
    family = c["model_type"]
    experts = c.get("num_experts", c.get("num_local_experts"))
    rest = {n: value for n, value in w.items() if ".experts." not in n}
    for i in range(c["num_hidden_layers"]):
        layer = f"model.layers.{i}."
        if names(family, layer, 0)[0] not in w:
            continue
        gate, up, down = (np.stack([w[names(family, layer, e)[j]] for e in range(experts)]) for j in range(3))
        if fuse:
            rest |= {f"{layer}mlp.experts.gate_up_proj": np.concatenate([gate, up], 1), f"{layer}mlp.experts.down_proj": down}
        else:
            rest |= {f"{layer}mlp.experts.{n}.weight": v for n, v in (("gate", gate), ("up", up), ("down", down))}
    return rest


names_gguf = {
    "model.embed_tokens": "token_embd", "lm_head": "output", "model.norm": "output_norm", "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm", "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down", "mlp.gate": "ffn_gate_inp",
    "block_sparse_moe.gate": "ffn_gate_inp", "mlp.experts.gate": "ffn_gate_exps", "mlp.experts.up": "ffn_up_exps",
    "mlp.experts.down": "ffn_down_exps", "mlp.shared_expert.gate_proj": "ffn_gate_shexp",
    "mlp.shared_expert.up_proj": "ffn_up_shexp", "mlp.shared_expert.down_proj": "ffn_down_shexp",
    "mlp.shared_expert_gate": "ffn_gate_inp_shexp",
}


def write_gguf(family, w, c):
    import gguf
    arch = dict(mixtral="llama", qwen2_moe="qwen2moe", qwen3_moe="qwen3moe", olmoe="olmoe")[family]
    writer = gguf.GGUFWriter(out / f"small_{family}.gguf", arch)
    writer.add_context_length(c["max_position_embeddings"])
    writer.add_embedding_length(c["hidden_size"])
    writer.add_block_count(c["num_hidden_layers"])
    writer.add_feed_forward_length(c["intermediate_size"])
    writer.add_head_count(c["num_attention_heads"])
    writer.add_head_count_kv(c["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(c["rms_norm_eps"])
    writer.add_rope_freq_base(c["rope_theta"] if "rope_theta" in c else c["rope_parameters"]["rope_theta"])
    writer.add_expert_count(c.get("num_experts", c.get("num_local_experts")))
    writer.add_expert_used_count(c["num_experts_per_tok"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    if "moe_intermediate_size" in c:
        writer.add_expert_feed_forward_length(c["moe_intermediate_size"])
    if "shared_expert_intermediate_size" in c:
        writer.add_expert_shared_feed_forward_length(c["shared_expert_intermediate_size"])
    if "head_dim" in c:
        writer.add_key_length(c["head_dim"])
        writer.add_value_length(c["head_dim"])
    if c.get("clip_qkv"):
        writer.add_clamp_kqv(c["clip_qkv"])
    for name, value in stacked(w, c, False).items():
        stem, kind = name.rsplit(".", 1)
        layer = ""
        if stem.startswith("model.layers."):
            layer, stem = f"blk.{stem.split('.')[2]}.", stem.split(".", 3)[3]
        if family == "mixtral" and stem in ("self_attn.q_proj", "self_attn.k_proj"):
            heads = c["num_attention_heads" if stem == "self_attn.q_proj" else "num_key_value_heads"]
            value = value.reshape(heads, 2, -1, value.shape[1]).swapaxes(1, 2).reshape(value.shape)
        if stem == "mlp.shared_expert_gate":
            value = value[0]
        is_wide = value.ndim > 1 and "gate_inp" not in names_gguf[stem]
        writer.add_tensor(f"{layer}{names_gguf[stem]}.{kind}", value if is_wide else value.astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def compare(folder):
    config = json.loads((folder / "config.json").read_text())
    golden = json.loads((folder / "golden.json").read_text())
    logits = run(golden["ids"], load_file(folder / "model.safetensors"), config)
    want = np.array(list(golden["logits"].values()))
    got = logits[[int(p) for p in golden["logits"]]]
    print(f"{folder}: largest difference {np.abs(got - want).max():.2e}, largest logit {np.abs(want).max():.2f}")


for folder in sys.argv[1:]:
    compare(pathlib.Path(folder))
if len(sys.argv) == 1:
    for family, options in families.items():
        config = base | options | dict(model_type=family)
        weights = {}
        for name, shape in shapes(config):
            is_gain = name.endswith("norm.weight")
            spread = 0.2 if len(shape) == 1 else 0.6 if name.endswith(".gate.weight") else 0.3
            weights[name] = (is_gain + spread * rng.standard_normal(shape)).astype(np.float16)
        logits = run(ids, weights, config)
        rows = {str(p): [round(float(x), 6) for x in logits[p]] for p in (0, 13, 31)}
        folder = out / f"small_{family}"
        folder.mkdir(parents=True, exist_ok=True)
        golden = {"note": "float16 weights, float64 arithmetic, make_small_experts.py", "ids": ids, "logits": rows}
        (folder / "golden.json").write_text(json.dumps(golden) + "\n")
        (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")
        stored = stacked(weights, config, True) if family == "qwen3_moe" else weights
        save_file({n: np.ascontiguousarray(v) for n, v in stored.items()}, folder / "model.safetensors")
        (folder / "model.safetensors").chmod(0o644)
        write_gguf(family, weights, config)
