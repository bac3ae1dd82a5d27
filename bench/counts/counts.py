#!/usr/bin/env python3
"""Instructions by symbol and operator, from lists of executed blocks (blocks.c). Needs nm and readelf, nothing of PyPI.

  counts.py difference MORE LESS TOKENS PROGRAM CPU PHASE    CSV rows of what MORE ran beyond LESS, for each of TOKENS tokens
  counts.py table ROWS.csv INSPECT.json                      Markdown from all rows; INSPECT is acornc inspect --json's

MORE and LESS are lists of one program doing some work, and doing it once more, so that loading cancels out. A row is
program,cpu,phase,operator,symbol,insns,dot,matmul, the last three for each token: dot counts sdot, udot, usdot and sudot, matmul
smmla, ummla and usmmla, of NEON and of SVE. They are the evidence of what a kernel runs on.
"""
import bisect
import collections
import csv
import functools
import json
import re
import struct
import subprocess
import sys

# (mask, value) of an A64 instruction word. Arm ARM, C7 and C8; checked against objdump's reading of both programs.
DOT = [
    (0x9FE0FC00, 0x0E809400),  # sdot, udot (vector)
    (0x9FC0F400, 0x0F80E000),  # sdot, udot (by element)
    (0xBFE0FC00, 0x0E809C00),  # usdot (vector)
    (0xBF40F400, 0x0F00F000),  # usdot, sudot (by element)
    (0xFFE0F800, 0x44800000),  # SVE sdot, udot
    (0xFFE0F800, 0x44A00000),  # SVE sdot, udot (indexed)
    (0xFFE0FC00, 0x44807800),  # SVE usdot
]
MATMUL = [
    (0xDFE0F400, 0x4E80A400),  # smmla, ummla, usmmla
    (0xFF20FC00, 0x45009800),  # SVE smmla, ummla, usmmla
]

# Operators: the name of the first pattern that is found in a demangled symbol. Acorn's are its kernel families' namespaces.
OPERATORS = {
    "acorn": [
        (r"acorn::(gemm_\w+|lut_u8|requantise|rmsnorm|layernorm|rotate|append|attention|glu|hadamard|add|embed)::", r"\1"),
        (r"acorn::grouped::.*Nibbles", "gemm_s8_w4g"),  # engines and drivers for groups, by the codes that they unpack
        (r"acorn::grouped::", "gemm_s8_w2g"),
        (r"\(acorn::WeightFormat\)1\b", "gemm_s8_w8"),  # templates that the two families share (schema's layout.h)
        (r"\(acorn::WeightFormat\)2\b", "gemm_s8_w4"),
        (r"^xnn_\w*gemm", "gemm of XNNPACK"),
        (r"acorn::program::", None),  # the bench around the library
        (r"acorn::", "other: library"),
    ],
    "llama.cpp": [
        (r"ge(mv|mm)_q4_0", "matrix products, layers"),
        (r"ge(mv|mm)_q8_0", "matrix products, head"),
        (r"mul_mat|repack::tensor_traits|sgemm|vec_dot_q", "matrix products, rest"),
        (r"quantize_", "quantise activations"),
        (r"flash_attn|tiled_|vec_dot_f16|vec_mad|soft_max", "attention"),
        (r"norm", "rmsnorm"),
        (r"rope|sincosf", "rope"),
        (r"glu|silu", "glu"),
        (r"get_rows|set_rows|dup|cpy|fp32|fp16", "rows, copies, conversion"),
        (r"forward_(add|mul)|binary", "add, multiply"),
        (r"^ggml_|^llama_|ggml::", "other: graph, scheduling"),
    ],
}
# Of a program's operators, those that multiply by weights.
MATRIX = {"acorn": r"^gemm", "llama.cpp": r"^matrix"}


def output_of(command):
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


class Elf:
    """The parts of a 64-bit little-endian ELF file that are needed: file offset to address, address to symbol, words."""

    def __init__(self, path):
        self.name = path.rsplit("/", 1)[-1]
        with open(path, "rb") as file:
            self.data = file.read()
        assert self.data[:6] == b"\x7fELF\x02\x01", f"{path}: no 64-bit little-endian ELF file"
        table, entry_bytes, count = struct.unpack_from("<Q", self.data, 32)[0], *struct.unpack_from("<HH", self.data, 54)
        entries = [struct.unpack_from("<IIQQQQQQ", self.data, table + i * entry_bytes) for i in range(count)]
        self.segments = [(e[2], e[3], e[5]) for e in entries if e[0] == 1]  # PT_LOAD: offset, address, size in the file
        symbols = self.read_symbols(path, []) or self.read_symbols(path, ["-D"])
        self.symbols = sorted(symbols)
        self.starts = [symbol[0] for symbol in self.symbols]
        self.functions = self.read_functions(path)

    @staticmethod
    def read_symbols(path, options):
        text = output_of(["nm", "-C", "-S", "--defined-only", *options, path])
        matches = re.findall(r"^([0-9a-f]{16}) ([0-9a-f]{16}) [tTwWiIuV] (.*)$", text, re.M)
        return [(int(address, 16), int(size, 16), name) for address, size, name in matches]

    @staticmethod
    def read_functions(path):
        """Begin and end of every function that can be unwound: names the static functions of stripped libraries by address."""
        text = output_of(["readelf", "--debug-dump=frames", path])
        return sorted((int(begin, 16), int(end, 16)) for begin, end in re.findall(r" pc=([0-9a-f]+)\.\.([0-9a-f]+)", text))

    def symbol(self, offset):
        for begin, address, size in self.segments:
            if begin <= offset < begin + size:
                offset += address - begin
                break
        i = bisect.bisect_right(self.starts, offset) - 1
        if i >= 0 and offset < self.symbols[i][0] + self.symbols[i][1]:
            return re.sub(r"@@.*", "", self.symbols[i][2])
        i = bisect.bisect_right(self.functions, (offset, sys.maxsize)) - 1
        if i >= 0 and offset < self.functions[i][1]:
            return f"{self.name}+0x{self.functions[i][0]:x}"
        return self.name

    def count(self, offset, insns, patterns):
        words = struct.unpack_from(f"<{insns}I", self.data, offset)
        return sum(any(word & mask == value for mask, value in patterns) for word in words)


@functools.lru_cache(maxsize=None)
def elf(path):
    return Elf(path)


def executions(path):
    """Executions of each (file, offset, instructions)."""
    total = collections.Counter()
    with open(path, encoding="utf-8") as file:
        for line in file:
            times, insns, offset, where = line.rstrip("\n").split(" ", 3)
            total[where, int(offset, 16), int(insns)] += int(times)
    return total


def operator_of(program, symbol):
    """None: not the engine's work."""
    for pattern, name in OPERATORS[program.split(" ")[0]]:
        match = re.search(pattern, symbol)
        if match:
            return name and match.expand(name)
    return "other: libraries, unnamed"


def difference(more, less, tokens, program, cpu, phase):
    delta = executions(more)
    delta.subtract(executions(less))
    rows = collections.defaultdict(lambda: [0, 0, 0])
    for (where, offset, insns), times in delta.items():
        if times == 0:
            continue
        symbol, dots, matmuls = "(no file)", 0, 0
        if where != "-":
            binary = elf(where)
            symbol = binary.symbol(offset)
            dots, matmuls = binary.count(offset, insns, DOT), binary.count(offset, insns, MATMUL)
        for i, value in enumerate((insns, dots, matmuls)):
            rows[symbol][i] += times * value
    out = csv.writer(sys.stdout, lineterminator="\n")
    total = sum(values[0] for values in rows.values())
    rest = collections.defaultdict(lambda: [0, 0, 0])
    for symbol, values in sorted(rows.items(), key=lambda row: -row[1][0]):
        operator = operator_of(program, symbol)
        if operator and values[0] * 5000 >= total:
            out.writerow([program, cpu, phase, operator, symbol] + [round(value / int(tokens), 1) for value in values])
        elif operator:
            rest[operator] = [a + b for a, b in zip(rest[operator], values)]
    for operator, values in rest.items():
        out.writerow([program, cpu, phase, operator, "(rest)"] + [round(value / int(tokens), 1) for value in values])


class Weights:
    """Weights that a token is multiplied by, from acornc inspect --json: all of them, and those of one kernel family."""

    def __init__(self, path):
        with open(path, encoding="utf-8") as file:
            info = json.load(file)
        self.name, self.vocab_size, self.rows = info["name"], info["vocab_size"], info["weights"]

    def each_token(self, phase, family=None):
        total = 0
        for row in self.rows:
            if family is None or re.sub(r"g\d+$", "g", row["format"]) == family.rsplit("_", 1)[-1]:
                # A prompt is scored at its last token alone.
                scored = int(phase.rsplit(" ", 1)[-1]) if row["n"] == self.vocab_size and phase.startswith("prefill") else 1
                total += row["n"] * row["k"] / scored
        return total


class Run:
    """What one program ran in one phase on one core: [insns, dot, matmul] for each operator, and in all."""

    def __init__(self):
        self.operators = collections.defaultdict(lambda: [0.0, 0.0, 0.0])

    def add(self, row):
        sums = self.operators[row["operator"]]
        for i, column in enumerate(("insns", "dot", "matmul")):
            sums[i] += float(row[column])

    def total(self, column=0, pattern=""):
        return sum(values[column] for operator, values in self.operators.items() if re.search(pattern, operator))


def table(rows_path, inspect_path):
    weights = Weights(inspect_path)
    runs = collections.defaultdict(Run)
    with open(rows_path, encoding="utf-8") as file:
        for row in csv.DictReader(file, ["program", "cpu", "phase", "operator", "symbol", "insns", "dot", "matmul"]):
            runs[row["phase"], row["program"], row["cpu"]].add(row)
    cores = [core for core in ("neon", "dotprod", "i8mm") if any(key[2] == core for key in runs)]
    groups = sorted({key[:2] for key in runs})

    print(f"### {weights.name}\n")
    print("| phase | core | program | M instructions a token | matrix products, a weight | Acorn ÷ this |")
    print("|---|---|---|---|---|---|")
    for core in cores:
        for phase, program in groups:
            if (phase, program, core) not in runs:
                continue
            run, ours = runs[phase, program, core], runs.get((phase, "acorn", core))
            each = run.total(0, MATRIX[program.split(" ")[0]]) / weights.each_token(phase)
            ratio = f"{ours.total() / run.total():.2f}" if ours and program != "acorn" else ""
            print(f"| {phase} | {core} | {program} | {run.total() / 1e6:.2f} | {each:.3f} | {ratio} |")

    for phase, program in groups:
        there = [core for core in cores if (phase, program, core) in runs]
        each = ", instructions a weight" if program == "acorn" else ""
        print(f"\n{program}, {phase}: M instructions a token, share{each}\n")
        print("| operator | " + " | ".join(there) + " |\n|---|" + "---|" * len(there))
        size = {operator: values[0] for core in there for operator, values in runs[phase, program, core].operators.items()}
        for operator in sorted(size, key=lambda name: -size[name]):
            cells = []
            for core in there:
                run = runs[phase, program, core]
                insns = run.operators[operator][0] if operator in run.operators else 0
                cells.append(f"{insns / 1e6:.3f}, {insns / run.total():.1%}")
                if program == "acorn" and operator.startswith("gemm_"):
                    cells[-1] += f", {insns / weights.each_token(phase, operator):.3f}"
            print(f"| {operator} | " + " | ".join(cells) + " |")
        for column, name in ((1, "of these: dot products"), (2, "of these: matrix instructions")):
            print(f"| {name} | " + " | ".join(f"{runs[phase, program, core].total(column) / 1e6:.3f}" for core in there) + " |")


if __name__ == "__main__":
    commands = {"difference": (difference, 6), "table": (table, 2)}
    command, arguments = sys.argv[1:2], sys.argv[2:]
    if not command or command[0] not in commands or len(arguments) != commands[command[0]][1]:
        sys.exit(__doc__)
    commands[command[0]][0](*arguments)
