#!/usr/bin/env python3
"""A GGUF of a known geometry with random weights, as `acornc synth --like NAME` makes one for Acorn: for llama.cpp's timings
where real weights cannot be had. Tokens are dummies; the rows of routers differ in length, so that experts are chosen unevenly.

  make_gguf.py NAME OUT.gguf [--type Q4_0|Q8_0] [--layers N]

NAME: smollm2-135m, tinyllama-1.1b, llama-3.2-1b, qwen3-0.6b, olmoe-1b-7b, qwen3-30b-a3b, mamba2-6m, mamba2-130m. Needs gguf
and numpy of PyPI (compare.py brings them into build/peers/gguf). llama-quantize --allow-requantize makes other types of a Q8_0;
a Q4_0 made here has a head of its own in Q6_K, as llama-quantize leaves it."""
import argparse
import dataclasses

import gguf
import numpy as np


@dataclasses.dataclass(frozen=True)
class StateSpace:
    """Of a Mamba2 layer, with one group of heads."""
    heads: int
    head_dim: int
    state: int
    taps: int = 4  # of the convolution

    @property
    def inner(self) -> int:
        return self.heads * self.head_dim


@dataclasses.dataclass(frozen=True)
class Geometry:
    arch: str
    hidden: int
    layers: int
    ffn: int  # of an expert, where there are experts
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    tied: bool = False
    experts: int = 0
    used: int = 0
    qk_norm: bool = False
    state_space: StateSpace = None  # in place of attention and FFN


GEOMETRIES = {
    "smollm2-135m": Geometry("llama", 576, 30, 1536, 9, 3, 64, 49152, tied=True),
    "tinyllama-1.1b": Geometry("llama", 2048, 22, 5632, 32, 4, 64, 32000),
    "llama-3.2-1b": Geometry("llama", 2048, 16, 8192, 32, 8, 64, 128256, tied=True),
    "qwen3-0.6b": Geometry("qwen3", 1024, 28, 3072, 16, 8, 128, 151936, tied=True, qk_norm=True),
    "olmoe-1b-7b": Geometry("olmoe", 2048, 16, 1024, 16, 16, 128, 50304, experts=64, used=8, qk_norm=True),
    "qwen3-30b-a3b": Geometry("qwen3moe", 2048, 48, 768, 32, 4, 128, 151936, experts=128, used=8, qk_norm=True),
    # bench/shapes/mamba2-6m.txt, and state-spaces/mamba2-130m
    "mamba2-6m": Geometry("mamba2", 256, 12, 0, 0, 0, 0, 4096, tied=True, state_space=StateSpace(16, 32, 64)),
    "mamba2-130m": Geometry("mamba2", 768, 24, 0, 0, 0, 0, 50288, tied=True, state_space=StateSpace(24, 64, 128)),
}


@dataclasses.dataclass(frozen=True)
class Block:
    """Of a GGUF type: integers, perhaps scales of 8 bits for parts of them, and one scale in 16 bits."""
    weights: int
    bytes: int
    scale: int  # where the one in 16 bits lies
    rms: float  # of evenly spread integers
    parts: tuple = (0, 0)  # where those of 8 bits begin and end


BLOCKS = {
    "Q4_0": Block(32, 18, 0, 4.6),
    "Q8_0": Block(32, 34, 0, 74),
    "Q6_K": Block(256, 210, 208, 18.5, parts=(192, 208)),
}


def byte_characters() -> list:
    """What GPT-2's vocabulary writes for each byte."""
    printed = [*range(ord("!"), ord("~") + 1), *range(0xa1, 0xad), *range(0xae, 0x100)]
    others = [byte for byte in range(256) if byte not in printed]
    return [chr(byte) for byte in printed] + [chr(256 + index) for index in range(len(others))]


class Maker:
    def __init__(self, path: str, shape: Geometry, kind: str):
        self.shape = shape
        self.kind = kind
        self.random = np.random.default_rng(0)
        self.writer = gguf.GGUFWriter(path, shape.arch, use_temp_file=True)

    def linear(self, name: str, *shape: int, kind: str = None) -> None:
        """[..., K], outermost first: blocks with one scale, so that a row hands on the length of its input."""
        kind = kind or self.kind
        block, depth = BLOCKS[kind], shape[-1]
        blocks = np.empty((int(np.prod(shape)) // block.weights, block.bytes), np.uint8)
        codes = slice(2, None) if block.scale == 0 else slice(block.scale)
        blocks[:, codes] = self.random.integers(0, 256, (len(blocks), block.bytes - 2), np.uint8)
        blocks[:, block.scale:block.scale + 2] = np.frombuffer(np.float16(depth ** -0.5 / block.rms).tobytes(), np.uint8)
        blocks[:, slice(*block.parts)] = 1
        rows = blocks.reshape(*shape[:-1], depth // block.weights * block.bytes)
        self.writer.add_tensor(name, rows, raw_dtype=gguf.GGMLQuantizationType[kind])

    def floats(self, name: str, values: np.ndarray) -> None:
        self.writer.add_tensor(name, values.astype(np.float32))

    def facts(self, name: str) -> None:
        shape, writer = self.shape, self.writer
        writer.add_name(f"{name}, random weights")
        writer.add_context_length(8192)
        writer.add_embedding_length(shape.hidden)
        writer.add_block_count(shape.layers)
        writer.add_feed_forward_length(shape.ffn)
        writer.add_head_count(shape.heads)
        writer.add_layer_norm_rms_eps(1e-5)
        if shape.state_space:
            writer.add_ssm_conv_kernel(shape.state_space.taps)
            writer.add_ssm_inner_size(shape.state_space.inner)
            writer.add_ssm_state_size(shape.state_space.state)
            writer.add_ssm_time_step_rank(shape.state_space.heads)
            writer.add_ssm_group_count(1)
        else:
            writer.add_head_count_kv(shape.kv_heads)
            writer.add_key_length(shape.head_dim)
            writer.add_value_length(shape.head_dim)
            writer.add_rope_dimension_count(shape.head_dim)
            writer.add_rope_freq_base(10000.0)
        writer.add_vocab_size(shape.vocab)
        if shape.experts:
            writer.add_expert_count(shape.experts)
            writer.add_expert_used_count(shape.used)
            writer.add_expert_feed_forward_length(shape.ffn)
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre("gpt-2")
        tokens = ["<|endoftext|>", *byte_characters(), "th"]  # any text has tokens
        writer.add_token_list(tokens + [f"t{i}" for i in range(len(tokens), shape.vocab)])
        writer.add_token_types([gguf.TokenType.CONTROL] + [gguf.TokenType.NORMAL] * (shape.vocab - 1))
        writer.add_token_merges(["t h"])
        writer.add_bos_token_id(0)
        writer.add_eos_token_id(0)

    def state_space_layer(self, index: int) -> None:
        """Steps, decays and skips as an untrained Mamba2 has them."""
        part, hidden, name = self.shape.state_space, self.shape.hidden, f"blk.{index}."
        channels = part.inner + 2 * part.state  # of the convolution: x, B and C
        steps = np.exp(self.random.uniform(np.log(0.001), np.log(0.1), part.heads))
        self.floats(name + "attn_norm.weight", np.ones(hidden))
        self.linear(name + "ssm_in.weight", part.inner + channels + part.heads, hidden)
        self.floats(name + "ssm_conv1d.weight", self.random.standard_normal((channels, part.taps)) * part.taps ** -0.5)
        self.floats(name + "ssm_conv1d.bias", np.zeros(channels))
        self.floats(name + "ssm_dt.bias", np.log(np.expm1(steps)))
        self.floats(name + "ssm_a", -self.random.uniform(1, 16, (part.heads, 1)))
        self.floats(name + "ssm_d", np.ones((part.heads, 1)))
        self.floats(name + "ssm_norm.weight", np.ones((1, part.inner)))
        self.linear(name + "ssm_out.weight", hidden, part.inner)

    def layer(self, index: int) -> None:
        shape, name = self.shape, f"blk.{index}."
        wide, kv_wide = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
        self.floats(name + "attn_norm.weight", np.ones(shape.hidden))
        self.floats(name + "ffn_norm.weight", np.ones(shape.hidden))
        self.linear(name + "attn_q.weight", wide, shape.hidden)
        self.linear(name + "attn_k.weight", kv_wide, shape.hidden)
        self.linear(name + "attn_v.weight", kv_wide, shape.hidden)
        self.linear(name + "attn_output.weight", shape.hidden, wide)
        if shape.qk_norm:  # OLMoE's reaches over all heads, Qwen3's over one
            whole = shape.arch == "olmoe"
            self.floats(name + "attn_q_norm.weight", np.ones(wide if whole else shape.head_dim))
            self.floats(name + "attn_k_norm.weight", np.ones(kv_wide if whole else shape.head_dim))
        experts = (shape.experts,) if shape.experts else ()
        suffix = "_exps.weight" if shape.experts else ".weight"
        if shape.experts:
            lengths = np.linspace(1.6, 0.6, shape.experts)[self.random.permutation(shape.experts), None]
            router = self.random.standard_normal((shape.experts, shape.hidden)) * lengths / shape.hidden ** 0.5
            self.floats(name + "ffn_gate_inp.weight", router)
        self.linear(name + "ffn_gate" + suffix, *experts, shape.ffn, shape.hidden)
        self.linear(name + "ffn_up" + suffix, *experts, shape.ffn, shape.hidden)
        self.linear(name + "ffn_down" + suffix, *experts, shape.hidden, shape.ffn)

    def write(self, name: str) -> None:
        self.facts(name)
        self.linear("token_embd.weight", self.shape.vocab, self.shape.hidden)
        self.floats("output_norm.weight", np.ones(self.shape.hidden))
        if not self.shape.tied:
            self.linear("output.weight", self.shape.vocab, self.shape.hidden, kind={"Q4_0": "Q6_K"}.get(self.kind))
        for index in range(self.shape.layers):
            self.state_space_layer(index) if self.shape.state_space else self.layer(index)
        self.writer.write_header_to_file()
        self.writer.write_kv_data_to_file()
        self.writer.write_tensors_to_file(progress=False)
        self.writer.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=GEOMETRIES)
    parser.add_argument("out")
    parser.add_argument("--type", choices=("Q4_0", "Q8_0"), default="Q8_0")
    parser.add_argument("--layers", type=int)
    arguments = parser.parse_args()
    shape = GEOMETRIES[arguments.name]
    if arguments.layers:
        shape = dataclasses.replace(shape, layers=arguments.layers)
    Maker(arguments.out, shape, arguments.type).write(arguments.name)


if __name__ == "__main__":
    main()
