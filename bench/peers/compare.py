#!/usr/bin/env python3
"""Acorn beside llama.cpp on whole models: one command, from a build to a table and pictures.

  python3 bench/peers/compare.py [--pairs 5] [--models smollm2-135m,tinyllama-1.1b] [--threads N] [--out bench/results/peers]

Rounds are interleaved: each piece of work is done by every program before the next one's turn, then all of it again, so that what
disturbs the machine disturbs them alike. A ratio is that of one round; reported are medians and, of ratios, the smallest and the
largest. Beside each figure stands the limit of the machine for Acorn's file: the bytes that the work must touch over the read
bandwidth, or its products over the multiply bandwidth, whichever takes longer, both measured in every round with as many threads
(acorn_bench_bounds). Instructions a token are counted by callgrind, one thread each, with AVX2: the emulated CPU has no AVX-512.

SmolLM2-135M has its real weights (toolchains/fetch_smollm2.sh; converted once, a few minutes); the others are made up, by
`acornc synth` and make_gguf.py, or, state-space models, by make_gguf.py for both. llama.cpp comes from Debian's packages
(llama_cpp.sh), ExecuTorch and LiteRT, where asked for, from PyPI. All files are kept in build/peers. Writes OUT.json (every run;
again after each round), OUT.md and OUT-MODEL.svg; report.py OUT.json makes the last two anew. With --add models that OUT.json has
and are not measured now stay; it must be of the same CPU and threads. With --resume rounds that it has of a model, a run that was
broken off for instance, count too.

Needs a release build (acorn, acornc, acorn_bench_bounds), apt, the network for what is not there yet, valgrind to count."""
import argparse
import dataclasses
import datetime
import json
import os
import pathlib
import subprocess
import sys

import programs
import report
import run_executorch
import run_litert
from programs import ROOT, Acorn, LlamaCpp, ProgramError, PythonRuntime, Work

MADE = ROOT / "build/peers/models"
TYPES = ("Q4_0", "Q4_K_M", "Q8_0")
LONG_TOKENS = 1024  # from here on work is timed once a round, as a pass takes long enough
LONG_TOKENS_LARGE = 256  # of large models
OTHERS_LONGEST = 512  # prompts and contexts of llama.cpp's types behind the first: a deep one takes minutes a round


@dataclasses.dataclass(frozen=True)
class Model:
    heads: int
    kv_heads: int  # 0: no attention
    context: int
    real: bool = False
    expert_products: int = 0  # of routed experts, a token: layers * chosen * three matrices
    large: bool = False  # its Q4_0 is made as one: a Q8_0 to start from would take 32 GB


MODELS = {
    "smollm2-135m": Model(9, 3, 8192, real=True),
    "tinyllama-1.1b": Model(32, 4, 2048),
    "qwen3-0.6b": Model(16, 8, 8192),
    "llama-3.2-1b": Model(32, 8, 8192),
    "olmoe-1b-7b": Model(16, 16, 4096, expert_products=16 * 8 * 3 * 2048 * 1024),
    "qwen3-30b-a3b": Model(32, 4, 8192, expert_products=48 * 8 * 3 * 2048 * 768, large=True),
    "mamba2-6m": Model(0, 0, 8192),
    "mamba2-130m": Model(0, 0, 8192),
}


def works(model: Model, quick: bool) -> list:
    prompts, contexts = ((32, 128), (0, 512)) if quick else ((32, 128, 512, 2048), (0, 512, 2048, 8192))
    decodes = [min(tokens, model.context - programs.GENERATED) for tokens in contexts if tokens <= model.context]
    return ([Work("prefill", tokens) for tokens in prompts] + [Work("decode", tokens) for tokens in decodes] +
            [Work("first_token", 32), Work("start", 32)] + ([Work("cold_start", 32)] if programs.can_drop_page_cache() else []))


# ---- files ------------------------------------------------------------------------------------------------------------------

def make(path: pathlib.Path, command: list) -> None:
    """The command writes the path it is given in place of {}; a file that is there is not made again."""
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    half = path.with_name("half-" + path.name)
    print(f"compare: making {path.name}", file=sys.stderr)
    programs.run([str(half) if word == "{}" else word for word in command])
    half.rename(path)


def python_with(key: str, packages: tuple) -> pathlib.Path:
    """A Python with packages of PyPI, in build/peers."""
    folder = ROOT / "build/peers" / key
    if not (folder / "done").exists():
        print(f"compare: installing {', '.join(packages)} into build/peers", file=sys.stderr)
        programs.run([sys.executable, "-m", "venv", folder])
        programs.run([folder / "bin/python", "-m", "pip", "install", "-q", *packages])
        (folder / "done").touch()
    return folder / "bin/python"


@dataclasses.dataclass(frozen=True)
class Runtime:
    """Of PyPI; asked for by --with."""
    name: str
    script: str
    suffix: str
    packages: tuple
    models: tuple
    longest: int  # tokens


# PyTorch of another release may not fit ExecuTorch's operators.
RUNTIMES = {
    "executorch": Runtime("ExecuTorch 8da4w", "run_executorch.py", "pte", ("executorch==1.5.1", "torch==2.13.0", "transformers"),
                          tuple(run_executorch.PARAMETERS), run_executorch.LONGEST),
    "litert": Runtime("LiteRT int4", "run_litert.py", "tflite", ("ai-edge-litert==2.3.0", "litert-torch", "torch==2.13.0"),
                      run_litert.NAMES, run_litert.LONGEST),
}


def python_runtime(key: str, name: str, threads: int) -> PythonRuntime:
    runtime = RUNTIMES[key]
    python = python_with(key, runtime.packages)
    path = MADE / f"{name}.{runtime.suffix}"
    make(path, [python, ROOT / "bench/peers" / runtime.script, "export", name, "{}"])
    return PythonRuntime(runtime.name, runtime.script, runtime.longest, path, python, threads)


def acorn_file(name: str, model: Model) -> pathlib.Path:
    path = MADE / f"{name}.acorn"
    command = [ROOT / "build/release/bin/acornc"]
    if model.real:
        command += ["convert", smollm2_source(), "-o", "{}"]
    elif model.kv_heads == 0:  # acornc synth draws no state spaces; made up weights need no more calibration than this
        command += ["convert", source_file(name, model), "-o", "{}", "--calibration-windows", "4", "--prefix", "none"]
    else:
        command += ["synth", "--like", name, "-o", "{}"]
    make(path, command)
    return path


def smollm2_source() -> pathlib.Path:
    return ROOT / programs.run(["bash", ROOT / "toolchains/fetch_smollm2.sh"]).out.strip()


def made_up(name: str, kind: str) -> pathlib.Path:
    path = MADE / f"{name}.{kind}.gguf"
    make(path, [python_with("gguf", ("gguf", "numpy")), ROOT / "bench/peers/make_gguf.py", name, "{}", "--type", kind])
    return path


def source_file(name: str, model: Model) -> pathlib.Path:
    """What llama-quantize and, where there are no others, acornc start from."""
    return smollm2_source() if model.real else made_up(name, "Q8_0")


def gguf_file(name: str, model: Model, kind: str) -> pathlib.Path:
    if model.large and kind == "Q4_0":
        return made_up(name, kind)
    path = MADE / f"{name}.{kind}.gguf"
    if not path.exists():  # its source may be gone by then
        source = source_file(name, model)
        make(path, ["bash", ROOT / "bench/peers/llama_cpp.sh", "run", "llama-quantize", "--allow-requantize", source, "{}", kind])
    return path


# ---- what the machine allows --------------------------------------------------------------------------------------------------

class Limits:
    """What a piece of work touches, of Acorn's file."""

    def __init__(self, inspected: dict, plan: dict, model: Model):
        """What `acornc inspect --json` and `acorn plan --json` say of it."""
        vocab = inspected["vocab_size"]
        tables = [row for row in inspected["weights"] if row["n"] == vocab]
        self.body_products = (sum(row["n"] * row["k"] for row in inspected["weights"] if row["n"] != vocab) +
                              model.expert_products)
        self.head_products = tables[-1]["n"] * tables[-1]["k"]
        self.chunk = plan["chunk_tokens"]
        rate = plan["rates"][0]
        self.weight_bytes, self.cache_row_bytes = rate["weight_bytes"], rate["cache_row_bytes"]
        # An 8-bit element of a key or value is multiplied once for each query head that reads it.
        self.products_a_key = self.cache_row_bytes * model.heads // model.kv_heads if model.kv_heads else 0
        self.state_bytes = 2 * rate["state_bytes"]  # read and written, once for each chunk of a prompt

    def bounds(self, threads: int) -> dict:
        command = [ROOT / "build/release/bin/acorn_bench_bounds", self.weight_bytes, "--benchmark_format=json"]
        bound = {}
        for row in json.loads(programs.run(command).out)["benchmarks"]:
            bound.update({unit: row[unit] for unit in ("GB/s", "GMAC/s") if unit in row and row["threads"] == threads})
            if "ns" in row and threads > 1:
                bound["ns"] = row["ns"]
        if not {"GB/s", "GMAC/s"} <= set(bound):
            raise ProgramError(f"acorn_bench_bounds measures no {threads} threads: 1 or every core")
        return bound

    def touched(self, work: Work) -> list:
        """(bytes, products) of each phase: of the whole prompt, or of one token. At the least: as if all tokens of a chunk chose
        the same experts."""
        def prompt(tokens):
            pairs = tokens * (tokens + 1) // 2
            return (-(-tokens // self.chunk) * (self.weight_bytes + self.state_bytes),
                    tokens * self.body_products + self.head_products + pairs * self.products_a_key)

        def token(context):
            return (self.weight_bytes + self.state_bytes + context * self.cache_row_bytes,
                    self.body_products + self.head_products + context * self.products_a_key)

        if work.kind == "prefill":
            return [prompt(work.tokens)]
        if work.kind == "decode":
            return [token(work.tokens + programs.GENERATED // 2)]
        return [prompt(work.tokens), token(work.tokens)] if work.kind == "first_token" else []

    def limit(self, work: Work, bound: dict) -> float:
        """In work.unit; 0 where there is none."""
        seconds = sum(max(1e-9 * read / bound["GB/s"], 1e-9 * products / bound["GMAC/s"])
                      for read, products in self.touched(work))
        if seconds == 0:
            return 0
        return 1e3 * seconds if work.unit == "ms" else (work.tokens if work.kind == "prefill" else 1) / seconds


# ---- measuring ----------------------------------------------------------------------------------------------------------------

def measure(name: str, arguments, results: dict, save) -> None:
    model = MODELS[name]
    acorn = Acorn(acorn_file(name, model), arguments.threads)
    longest = {kind: OTHERS_LONGEST for kind in arguments.types[1:]}
    peers = [LlamaCpp(gguf_file(name, model, kind), kind, arguments.threads, longest.get(kind, sys.maxsize))
             for kind in arguments.types]
    peers += [python_runtime(key, name, arguments.threads) for key in arguments.runtimes if name in RUNTIMES[key].models]
    plan = acorn.plan()
    inspected = json.loads(programs.run([ROOT / "build/release/bin/acornc", "inspect", acorn.file, "--json"]).out)
    limits = Limits(inspected, plan, model)
    all_works, today = works(model, arguments.quick), measured()
    entry = {
        "weights": "real" if model.real else "made up", "pairs": 0, "measured": today,
        "file_bytes": {program.name: os.path.getsize(program.file) for program in [acorn, *peers]},
        "weight_bytes_a_token": limits.weight_bytes, "block_bytes": plan["block_bytes"],
        "bounds": [], "open_ms": [], "instructions": {},
        "works": [{"kind": work.kind, "tokens": work.tokens, "name": work.name, "unit": work.unit, "limits": [],
                   "runs": {program.name: [] for program in [acorn, *peers]},
                   "peak_rss_bytes": {program.name: [] for program in [acorn, *peers]}} for work in all_works]}
    if arguments.resume and name in results["models"]:
        entry = resumed(entry, results["models"][name])
    results["models"][name] = entry
    for pair in range(entry["pairs"], arguments.pairs):
        if today not in entry["measured"].split("; "):
            entry["measured"] += "; " + today
        bound = limits.bounds(arguments.threads)
        entry["bounds"].append(bound)
        entry["open_ms"].append(acorn.open_ms())
        for work, row in zip(all_works, entry["works"]):
            row["limits"].append(limits.limit(work, bound))
            for program in [acorn, *peers]:
                if not program.can(work):
                    continue
                if work.kind == "cold_start":
                    programs.drop_page_cache()
                long = work.tokens >= (LONG_TOKENS_LARGE if model.large else LONG_TOKENS)
                value, process = program.measure(work, 1 if long else 3)
                row["runs"][program.name].append(value)
                row["peak_rss_bytes"][program.name].append(process.peak_rss_bytes)
            print(f"compare: {name}, round {pair + 1}, {work.name}: " +
                  ", ".join(f"{program} {values[-1]:.4g}" for program, values in row["runs"].items() if values) + f" {work.unit}",
                  file=sys.stderr)
        entry["pairs"] = pair + 1
        save()
    if name not in arguments.instructions.split(","):
        return
    for work in (Work("decode", 0), Work("prefill", 64)):
        counts = entry["instructions"][work.name] = {}
        for program in [acorn, *peers]:
            if isinstance(program, PythonRuntime):
                continue
            counts[program.name] = program.instructions(work)
            print(f"compare: {name}, {work.name}: {program.name} {counts[program.name]:.4g} instructions a token",
                  file=sys.stderr)
    save()


def resumed(entry: dict, before: dict) -> dict:
    """The entry that OUT.json has, for more rounds: of the same files, programs and works."""
    def subject(one):
        return one["file_bytes"], [(row["name"], list(row["runs"])) for row in one["works"]]
    if subject(before) != subject(entry):
        raise ProgramError("--resume: other files, programs or works than those that were measured before")
    before["pairs"] = len(before["open_ms"])  # of a run that was broken off, fewer than it was to have
    before["block_bytes"], before["weight_bytes_a_token"] = entry["block_bytes"], entry["weight_bytes_a_token"]
    return before


def measured() -> str:
    """The day, and the commit where there is one; "-dirty" where more than results differ from it."""
    def git(*words):
        return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=False)
    commit = git("describe", "--always", "--exclude=*").stdout.strip()
    dirty = commit and git("diff", "--quiet", "HEAD", "--", ".", ":!bench/results").returncode != 0
    return datetime.date.today().isoformat() + (f", {commit}" if commit else "") + ("-dirty" if dirty else "")


def kept(out: pathlib.Path, results: dict) -> dict:
    """The models that OUT.json has, which must be of the same machine and threads."""
    path = out.with_suffix(".json")
    if not path.exists():
        return {}
    old = json.loads(path.read_text(encoding="utf-8"))
    for key in ("cpu", "cores", "threads", "backend"):
        if old.get(key) != results[key]:
            raise ProgramError(f"--add: {path} is of {key} {old.get(key)}, this would be of {results[key]}: choose another --out")
    return old["models"]


def cpu_name() -> str:
    """With family and model where there are any: virtual machines call a Zen 4 and a Zen 5 "AMD EPYC" alike."""
    fields = dict(map(str.strip, line.split(":", 1))
                  for line in open("/proc/cpuinfo", encoding="utf-8").read().split("\n\n")[0].splitlines())
    if "model name" not in fields:
        return os.uname().machine
    return ", ".join(word + fields[key] for key, word in (("model name", ""), ("cpu family", "family "), ("model", "model "))
                     if key in fields)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=5, help="rounds (default 5)")
    parser.add_argument("--models", default="smollm2-135m,tinyllama-1.1b", help="of " + ", ".join(MODELS))
    parser.add_argument("--types", default=",".join(TYPES),
                        help=f"of llama.cpp (default %(default)s); those behind the first up to {OTHERS_LONGEST} tokens of context")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="1, or every core (default)")
    parser.add_argument("--instructions", default="smollm2-135m", metavar="MODELS",
                        help="whose instructions are counted, minutes each (default %(default)s; '': none)")
    parser.add_argument("--with", dest="runtimes", default="", help="also beside, in int4 and of the same geometry, one or both of " +
                        ",".join(RUNTIMES) + " (PyPI, gigabytes)")
    parser.add_argument("--quick", action="store_true", help="short prompts and contexts alone")
    parser.add_argument("--add", action="store_true", help="to the models that --out has, of the same CPU and threads")
    parser.add_argument("--resume", action="store_true", help="--add, and rounds of these models go on to --pairs")
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "bench/results/peers")
    arguments = parser.parse_args()
    arguments.types = arguments.types.split(",")
    unknown = [name for name in arguments.models.split(",") if name not in MODELS]
    arguments.runtimes = [key for key in arguments.runtimes.split(",") if key]
    unknown += [key for key in arguments.runtimes if key not in RUNTIMES]
    if unknown or arguments.pairs < 1 or not set(arguments.types) <= set(TYPES):
        parser.error(f"--models of {', '.join(MODELS)}; --types of {', '.join(TYPES)}; --with of {', '.join(RUNTIMES)}; --pairs "
                     "from 1 on are wanted")
    out = arguments.out.resolve()
    try:
        programs.run(["bash", ROOT / "bench/peers/llama_cpp.sh", "setup"])
        first = LlamaCpp(gguf_file(arguments.models.split(",")[0], MODELS[arguments.models.split(",")[0]], arguments.types[0]),
                         arguments.types[0], arguments.threads, sys.maxsize)
        results = {"cpu": cpu_name(), "cores": os.cpu_count(), "threads": arguments.threads, "backend": first.backend(),
                   "models": {}}
        if arguments.add or arguments.resume:
            results["models"] = kept(out, results)

        def save():
            out.parent.mkdir(parents=True, exist_ok=True)
            out.with_suffix(".json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")

        for name in arguments.models.split(","):
            measure(name, arguments, results, save)
    except (ProgramError, subprocess.SubprocessError, OSError) as error:
        print(f"compare: {error}", file=sys.stderr)
        return 1
    report.write(results, out)
    print(out.with_suffix(".md").read_text(encoding="utf-8"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
