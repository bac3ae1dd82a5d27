#!/usr/bin/env python3
"""ExecuTorch (PyPI) with XNNPACK on a known geometry with random weights: the export, and one measurement of it. compare.py calls
it with the Python of build/peers/executorch.

  run_executorch.py export NAME OUT.pte
  run_executorch.py run FILE.pte --prompt N --generated M --threads T --repetitions R      one line of JSON

Weights are 8da4w in groups of 32, the embedding in 8 bits, attention by ExecuTorch's own operator on a cache of float32: what its
documentation recommends for a CPU. The head is a linear layer like the others, in 4 bits. A prompt goes in whole; logits of its
last token come out. After one pass that warms up, R are timed; medians."""
import argparse
import json
import pathlib
import statistics
import subprocess
import sys
import time

CONTEXT = 2112  # tokens: a prompt of 2,048 and what is decoded after it
PARAMETERS = {
    "smollm2-135m": {"dim": 576, "n_layers": 30, "n_heads": 9, "n_kv_heads": 3, "hidden_dim": 1536, "vocab_size": 49152,
                     "rope_theta": 100000.0},
    "tinyllama-1.1b": {"dim": 2048, "n_layers": 22, "n_heads": 32, "n_kv_heads": 4, "hidden_dim": 5632, "vocab_size": 32000,
                       "rope_theta": 10000.0},
}


def export(name: str, out: pathlib.Path) -> None:
    parameters = out.with_suffix(".json")
    parameters.write_text(json.dumps({**PARAMETERS[name], "norm_eps": 1e-5, "use_hf_rope": True}), encoding="utf-8")
    command = [sys.executable, "-m", "executorch.extension.llm.export.export_llm", "base.model_class=llama2",
               f"base.params={parameters.resolve()}", "model.use_kv_cache=True", "model.use_sdpa_with_kv_cache=True",
               "quantization.qmode=8da4w", "quantization.group_size=32", "quantization.embedding_quantize='8,0'",
               "backend.xnnpack.enabled=True", "backend.xnnpack.extended_ops=True", f"export.max_seq_length={CONTEXT}",
               f"export.max_context_length={CONTEXT}", f"export.output_dir={out.resolve().parent}",
               f"export.output_name={out.name}"]
    subprocess.run(command, check=True, cwd=out.resolve().parent)


def measure(arguments) -> dict:
    import torch
    from executorch.extension.llm.custom_ops import custom_ops  # noqa: F401  registers attention
    from executorch.extension.pybindings.portable_lib import _load_for_executorch, _unsafe_reset_threadpool
    from executorch.kernels import quantized  # noqa: F401  registers the 8-bit embedding

    _unsafe_reset_threadpool(arguments.threads)
    module = _load_for_executorch(arguments.file)
    tokens = torch.arange(arguments.prompt + arguments.generated).reshape(1, -1) * 7919 % 30000

    def forward(begin: int, end: int) -> float:
        started = time.monotonic()
        module.forward((tokens[:, begin:end], torch.tensor([begin], dtype=torch.long)))
        return time.monotonic() - started

    prefill, decode, first = [], [], []
    for _ in range(1 + arguments.repetitions):
        prefill.append(forward(0, arguments.prompt))
        steps = [forward(at, at + 1) for at in range(arguments.prompt, arguments.prompt + arguments.generated)]
        decode.append(sum(steps))
        first.append(prefill[-1] + sum(steps[:1]))
    figures = {"prefill_tokens_per_s": arguments.prompt / statistics.median(prefill[1:]),
               "first_token_ms": 1e3 * statistics.median(first[1:])}
    if arguments.generated:
        figures["decode_tokens_per_s"] = arguments.generated / statistics.median(decode[1:])
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    exporting = commands.add_parser("export")
    exporting.add_argument("name", choices=PARAMETERS)
    exporting.add_argument("out", type=pathlib.Path)
    running = commands.add_parser("run")
    running.add_argument("file")
    for option, default in (("prompt", 32), ("generated", 1), ("threads", 1), ("repetitions", 3)):
        running.add_argument(f"--{option}", type=int, default=default)
    arguments = parser.parse_args()
    if arguments.command == "export":
        export(arguments.name, arguments.out)
    else:
        print(json.dumps(measure(arguments)))


if __name__ == "__main__":
    main()
