"""The programs that compare.py runs side by side. Each takes a piece of work and says its speed; the time and the memory of its
whole process are measured alike for all. Standard library alone."""
import dataclasses
import json
import os
import pathlib
import re
import subprocess
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
GENERATED = 32  # tokens that a measurement of decoding takes


@dataclasses.dataclass(frozen=True)
class Work:
    """kind: prefill (tokens a prompt), decode (tokens: the context before it), first_token (tokens a prompt; the time until one
    token after it is decoded), start (a whole process, whose first run is a prompt of so many tokens), cold_start (the same, nothing
    of it in the page cache)."""
    kind: str
    tokens: int = 0

    @property
    def unit(self) -> str:
        return "tokens/s" if self.kind in ("prefill", "decode") else "ms"

    @property
    def name(self) -> str:
        return {"prefill": f"prefill of {self.tokens}", "decode": f"decode at {self.tokens}",
                "first_token": f"first token after {self.tokens}", "start": f"process, prompt of {self.tokens}",
                "cold_start": f"process, prompt of {self.tokens}, cold"}[self.kind]

    @property
    def is_start(self) -> bool:
        return self.kind in ("start", "cold_start")


@dataclasses.dataclass(frozen=True)
class Run:
    """One process: what it printed on its standard output, its wall-clock time and its peak resident memory."""
    out: str
    seconds: float
    peak_rss_bytes: int


VALGRIND = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null"]


class ProgramError(Exception):
    pass


def drop_page_cache() -> None:
    """Programs and models come from storage next. Needs root."""
    os.sync()
    pathlib.Path("/proc/sys/vm/drop_caches").write_text("3", encoding="ascii")


def can_drop_page_cache() -> bool:
    return os.access("/proc/sys/vm/drop_caches", os.W_OK)


def run(command: list, log: str = "", folder: pathlib.Path = ROOT) -> Run:
    """Runs it in the folder, to its end. log: a file that gets its standard error, else that is kept for the message of a failure."""
    with open(log, "w+b") if log else tempfile.TemporaryFile() as errors:
        begin = time.monotonic()
        process = subprocess.Popen([str(word) for word in command], stdout=subprocess.PIPE, stderr=errors, cwd=folder)
        out = process.stdout.read().decode()
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.monotonic() - begin
        process.returncode = os.waitstatus_to_exitcode(status)
        process.stdout.close()
        if process.returncode != 0:
            errors.seek(0)
            tail = errors.read().decode(errors="replace").splitlines()[-5:]
            raise ProgramError(" ".join(map(str, command)) + f": exit code {process.returncode}\n" + "\n".join(tail))
    return Run(out, seconds, usage.ru_maxrss * 1024)


def callgrind(command: list, folder: pathlib.Path = ROOT) -> int:
    """Instructions that the whole process executes, as valgrind shows them to a CPU with AVX2 and without AVX-512."""
    with tempfile.NamedTemporaryFile() as log:
        run(VALGRIND + command, log.name, folder)
        return int(re.search(rb"Collected : (\d+)", log.read()).group(1))


class Acorn:
    """`acorn bench`, which times passes after one with a profile and one that warms up."""
    name = "Acorn"

    def __init__(self, file: str, threads: int):
        self.file, self.threads = file, threads
        self.program = ROOT / "build/release/bin/acorn"

    def command(self, prompt: int, generated: int, repetitions: int, threads: int) -> list:
        return [self.program, "bench", self.file, "--threads", threads, "--json", "--prompt-tokens", prompt,
                "--gen-tokens", generated, "--repetitions", repetitions]

    def can(self, work: Work) -> bool:
        return True

    def measure(self, work: Work, repetitions: int) -> tuple:
        """(value in work.unit, Run). What decodes once gets no passes before it: its long prompt warms up."""
        prompt, generated, figure = {
            "prefill": (work.tokens, 0, "prefill_tokens_per_s"),
            "decode": (max(work.tokens, 1), GENERATED, "decode_tokens_per_s"),  # it has no decode without a prompt
            "first_token": (work.tokens, 1, "first_token_ms"),
            "start": (work.tokens, 0, None),
            "cold_start": (work.tokens, 0, None)}[work.kind]
        first = work.is_start or (work.kind == "decode" and repetitions == 1)
        process = run(self.command(prompt, generated, 0 if first else repetitions, self.threads))
        return (process.seconds * 1e3 if figure is None else json.loads(process.out)[figure]), process

    def open_ms(self) -> float:
        """Verifying, planning and laying out, by the program's own clock, with the file in the page cache."""
        return json.loads(run(self.command(1, 0, 1, self.threads)).out)["open_ms"]

    def plan(self) -> dict:
        return json.loads(run([self.program, "plan", self.file, "--json", "--threads", self.threads]).out)

    def instructions(self, work: Work) -> float:
        """For each token, one thread, AVX2: what one repetition adds to another."""
        prompt, generated = (work.tokens, 0) if work.kind == "prefill" else (1, GENERATED // 2 - 1)
        once, twice = (callgrind(self.command(prompt, generated, repetitions, 1) + ["--isa", "avx2"])
                       for repetitions in (1, 2))
        return (twice - once) / (prompt + generated)


class LlamaCpp:
    """llama-bench from Debian's packages (llama_cpp.sh), with its defaults but for the threads."""

    def __init__(self, file: str, kind: str, threads: int, longest: int):
        """longest: tokens of a prompt or a context that it is asked for"""
        self.file, self.name, self.threads, self.longest = file, f"llama.cpp {kind}", threads, longest
        # Without the script, so that a process has nobody's time but its own.
        self.folder, *self.program = run(["bash", ROOT / "bench/peers/llama_cpp.sh", "words", "llama-bench"]).out.splitlines()

    def command(self, arguments: list) -> list:
        return [*self.program, "-m", self.file, "-o", "jsonl"] + arguments

    def can(self, work: Work) -> bool:
        return work.tokens <= self.longest

    def measure(self, work: Work, repetitions: int) -> tuple:
        arguments = {
            "prefill": ["-p", work.tokens, "-n", 0],
            "decode": ["-p", 0, "-n", GENERATED, "-d", work.tokens],
            "first_token": ["-p", 0, "-n", 0, "-pg", f"{work.tokens},1"],
            "start": ["-p", work.tokens, "-n", 0, "--no-warmup"],
            "cold_start": ["-p", work.tokens, "-n", 0, "--no-warmup"]}[work.kind]
        process = run(self.command(arguments + ["-t", self.threads, "-r", 1 if work.is_start else repetitions]),
                      folder=self.folder)
        if work.is_start:
            return process.seconds * 1e3, process
        row = json.loads(process.out.splitlines()[-1])
        middle = sorted(row["samples_ns"])[len(row["samples_ns"]) // 2]
        tokens = row["n_prompt"] + row["n_gen"]
        return (middle / 1e6 if work.kind == "first_token" else tokens / middle * 1e9), process

    def backend(self) -> str:
        """The library with kernels that it chooses on this CPU, as libggml-cpu-zen4.so."""
        with tempfile.NamedTemporaryFile() as log:
            run(self.command(["-p", 1, "-n", 0, "--no-warmup", "-r", 1, "-t", self.threads]), log.name, self.folder)
            found = re.search(rb"load_backend: loaded .*/([^/\s]*)", log.read())
            return found.group(1).decode() if found else "unknown"

    def instructions(self, work: Work) -> float:
        arguments = ["-p", work.tokens, "-n", 0] if work.kind == "prefill" else ["-p", 0, "-n", GENERATED // 2]
        once, twice = (callgrind(self.command(arguments + ["-t", 1, "--no-warmup", "-r", repetitions]), self.folder)
                       for repetitions in (1, 2))
        return (twice - once) / (work.tokens if work.kind == "prefill" else GENERATED // 2)


class PythonRuntime:
    """run_executorch.py or run_litert.py in a Python of its own, which lies beside the runtime: memory and start of the process say
    little of the runtime itself."""

    def __init__(self, name: str, script: str, longest: int, file: str, python: pathlib.Path, threads: int):
        self.name, self.script, self.longest, self.file, self.python, self.threads = name, script, longest, file, python, threads

    def can(self, work: Work) -> bool:
        return not work.is_start and work.tokens + (0 if work.kind == "prefill" else GENERATED) <= self.longest

    def measure(self, work: Work, repetitions: int) -> tuple:
        prompt, generated, figure = {
            "prefill": (work.tokens, 0, "prefill_tokens_per_s"),
            "decode": (max(work.tokens, 1), GENERATED, "decode_tokens_per_s"),
            "first_token": (work.tokens, 1, "first_token_ms")}[work.kind]
        process = run([self.python, ROOT / "bench/peers" / self.script, "run", self.file, "--prompt", prompt, "--generated",
                       generated, "--threads", self.threads, "--repetitions", repetitions])
        return json.loads(process.out.splitlines()[-1])[figure], process
