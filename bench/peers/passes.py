"""What run_executorch.py and run_litert.py have in common: their command line, and the timing of passes. Standard library alone."""
import argparse
import json
import pathlib
import statistics
import time


def measure(forward, prompt: int, generated: int, repetitions: int) -> dict:
    """forward(begin, end) appends the tokens [begin, end). After one pass that warms up, `repetitions` are timed; medians."""
    def timed(begin: int, end: int) -> float:
        started = time.monotonic()
        forward(begin, end)
        return time.monotonic() - started

    prefill, decode, first = [], [], []
    for _ in range(1 + repetitions):
        prefill.append(timed(0, prompt))
        steps = [timed(at, at + 1) for at in range(prompt, prompt + generated)]
        decode.append(sum(steps))
        first.append(prefill[-1] + sum(steps[:1]))
    figures = {"prefill_tokens_per_s": prompt / statistics.median(prefill[1:]), "first_token_ms": 1e3 * statistics.median(first[1:])}
    if generated:
        figures["decode_tokens_per_s"] = generated / statistics.median(decode[1:])
    return figures


def main(description: str, names, export, load) -> None:
    """export(name, out) writes a file; load(file, threads) gives forward."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    exporting = commands.add_parser("export")
    exporting.add_argument("name", choices=names)
    exporting.add_argument("out", type=pathlib.Path)
    running = commands.add_parser("run")
    running.add_argument("file")
    for option, default in (("prompt", 32), ("generated", 1), ("threads", 1), ("repetitions", 3)):
        running.add_argument(f"--{option}", type=int, default=default)
    arguments = parser.parse_args()
    if arguments.command == "export":
        export(arguments.name, arguments.out.resolve())
    else:
        forward = load(arguments.file, arguments.threads)
        print(json.dumps(measure(forward, arguments.prompt, arguments.generated, arguments.repetitions)))
