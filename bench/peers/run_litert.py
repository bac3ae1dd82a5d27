#!/usr/bin/env python3
"""LiteRT (PyPI) with XNNPACK on a known geometry with random weights: the conversion, and one measurement of it. compare.py calls
it with the Python of build/peers/litert.

  run_litert.py export NAME OUT.tflite
  run_litert.py run FILE.tflite --prompt N --generated M --threads T --repetitions R       one line of JSON

Built from LiteRT-Torch's own generative layers, as its examples are: dynamic int4 weights in blocks of 32, a cache of float32 whose
length is fixed in the file, so that attention always passes over all of it. A prompt has a signature for its own length and gives
no logits, as in those examples; keys and values stay in one set of buffers, which every call reads and writes."""
import importlib.machinery
import pathlib
import sys
import types

import passes

LONGEST = 1024  # tokens of the cache
PROMPTS = (1, 32, 128, 512)
NAMES = ("smollm2-135m",)


def export(name: str, out: pathlib.Path) -> None:
    # The generative layers import one generated file of TensorFlow's, which LiteRT has too; the rest of it is not needed.
    from ai_edge_litert import schema_py_generated
    for package in ("tensorflow", "tensorflow.lite", "tensorflow.lite.python"):
        sys.modules[package] = types.ModuleType(package)
        sys.modules[package].__spec__ = importlib.machinery.ModuleSpec(package, None, is_package=True)
        sys.modules[package].__path__ = []
    sys.modules["tensorflow.lite.python"].schema_py_generated = schema_py_generated

    import torch
    from litert_torch.generative.examples.smollm import smollm
    from litert_torch.generative.utilities import converter
    from litert_torch.generative.utilities.export_config import ExportConfig

    torch.manual_seed(0)
    config = smollm.get_model_config_v2()
    config.max_seq_len = LONGEST
    model = smollm.SmolLM2(config, LONGEST).eval()
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() > 1:
                weight.normal_(0, weight.shape[-1] ** -0.5)
    made = converter.convert_to_tflite(model, output_path=str(out.parent), output_name_prefix=out.stem, prefill_seq_len=list(PROMPTS),
                                       kv_cache_max_len=LONGEST, quantize="dynamic_int4_block32", export_config=ExportConfig())
    pathlib.Path(made).rename(out)


def load(file: str, threads: int):
    import numpy
    from ai_edge_litert.compiled_model import CompiledModel
    from ai_edge_litert.options import CpuOptions, Options

    model = CompiledModel.from_file(file, options=Options(cpu_options=CpuOptions(num_threads=threads)))
    tokens = numpy.arange(LONGEST, dtype=numpy.int32).reshape(1, -1) * 7919 % 30000
    signatures = model.get_signature_list()
    cache = {name: model.create_input_buffer_by_name("decode", name) for name in signatures["decode"]["inputs"] if "cache" in name}
    for name, buffer in cache.items():
        shape = model.get_input_tensor_details("decode")[name]["shape"]
        buffer.write(numpy.zeros(shape, numpy.float32))
    own = {key: {name: model.create_input_buffer_by_name(key, name) for name in ("tokens", "input_pos")} for key in signatures}
    logits = model.create_output_buffer_by_name("decode", "logits")

    def forward(begin: int, end: int) -> None:
        key = "decode" if begin > 0 else f"prefill_{end}"
        own[key]["tokens"].write(tokens[:, begin:end])
        own[key]["input_pos"].write(numpy.arange(begin, end, dtype=numpy.int32))
        has_logits = "logits" in signatures[key]["outputs"]  # of one token, not of a prompt
        model.run_by_name(key, {**own[key], **cache}, {**cache, "logits": logits} if has_logits else cache)

    return forward


if __name__ == "__main__":
    passes.main(__doc__, NAMES, export, load)
