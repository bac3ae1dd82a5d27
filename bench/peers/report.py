#!/usr/bin/env python3
"""The table and the pictures of compare.py's figures: report.py OUT.json writes OUT.md and OUT-MODEL.svg."""
import json
import math
import pathlib
import statistics
import sys
from xml.sax.saxutils import escape

COLOURS = ("#4c6f91", "#c2803d", "#7c9a5b", "#8a5a83", "#a0524d")
WIDTH, LEFT, RIGHT, PANEL, TOP, GAP = 760, 70, 560, 230, 70, 70


def number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def ratios(ours: list, theirs: list, more_is_better: bool) -> list:
    """Above 1: ours is better."""
    return [a / b if more_is_better else b / a for a, b in zip(ours, theirs)]


def ratio_text(values: list) -> str:
    return f"{statistics.median(values):.2f} × ({min(values):.2f} to {max(values):.2f})"


# ---- the table ----------------------------------------------------------------------------------------------------------------

def rows_of(entry: dict):
    """(name, unit, limits, more is better, {program: values})"""
    for row in entry["works"]:
        yield row["name"], row["unit"], row["limits"], row["unit"] != "ms", row["runs"]
    resident = next((row for row in entry["works"] if row["name"] == "prefill of 512"), entry["works"][0])
    mebibytes = {program: [value / 2**20 for value in values] for program, values in resident["peak_rss_bytes"].items()}
    yield f"peak memory, {resident['name']}", "MiB", [], False, mebibytes
    for name, counts in entry["instructions"].items():
        millions = {program: [1e-6 * value] for program, value in counts.items()}
        yield f"instructions a token, {name}", "M, AVX2", [], False, millions


def table(entry: dict) -> str:
    programs = list(entry["file_bytes"])
    ours, peers = programs[0], programs[1:]
    lines = ["| | unit | limit here | " + ours + " | of the limit | " +
             " | ".join(f"{peer} | better by (spread)" for peer in peers) + " |", "|---" * (5 + 2 * len(peers)) + "|"]
    for name, unit, limits, more, runs in rows_of(entry):
        mine = statistics.median(runs[ours])
        cells = [name, unit, "", number(mine), ""]
        if limits and statistics.median(limits) > 0:
            shares = [100 * share for share in ratios(runs[ours], limits, more)]
            cells[2] = number(statistics.median(limits))
            cells[4] = f"{statistics.median(shares):.0f} % ({min(shares):.0f} to {max(shares):.0f})"
        for peer in peers:
            theirs = runs.get(peer)  # none where the peer cannot do the work
            cells += [number(statistics.median(theirs)), ratio_text(ratios(runs[ours], theirs, more))] if theirs else ["", ""]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def markdown(results: dict, out: pathlib.Path) -> str:
    parts = [f"{results['cpu']}, {results['cores']} cores, {results['threads']} threads each, interleaved rounds; llama.cpp "
             f"runs on {results['backend']}. Medians and, in brackets, spreads; ratios and shares of a limit are those of one round; above 1 Acorn is better. "
             "`python3 bench/peers/compare.py`."]
    for name, entry in results["models"].items():
        bound = {unit: statistics.median(row[unit] for row in entry["bounds"]) for unit in ("GB/s", "GMAC/s")}
        hand_overs = [row["ns"] for row in entry["bounds"] if "ns" in row]
        hand_over = (f", a line from core to core {statistics.median(hand_overs):.0f} ns ({min(hand_overs):.0f} to "
                     f"{max(hand_overs):.0f})" if hand_overs else "")
        sizes = ", ".join(f"{program} {size / 1e6:,.1f} MB" for program, size in entry["file_bytes"].items())
        parts.append(
            f"## {name}, {entry['weights']} weights\n\n{entry['pairs']} rounds ({entry['measured']}). {sizes}. "
            f"Read {bound['GB/s']:.1f} GB/s, products {bound['GMAC/s']:,.0f} "
            f"GMAC/s{hand_over}; a token reads {entry['weight_bytes_a_token'] / 1e6:.1f} MB of weights. Acorn opens in "
            f"{statistics.median(entry['open_ms']):.2f} ms and wants {entry['block_bytes'] / 2**20:.1f} MiB beside its file for "
            f"the whole context.\n\n{table(entry)}\n\n![{name}]({out.name}-{name}.svg)")
    return "\n\n".join(parts) + "\n"


# ---- the picture --------------------------------------------------------------------------------------------------------------

def text(x: float, y: float, words: str, style: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" {style}>{escape(words)}</text>\n'


def line(x1: float, y1: float, x2: float, y2: float, colour: str) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}"/>\n'


class Panel:
    """Tokens/s, on a logarithmic scale, of one kind of work; a column for each number of tokens."""

    def __init__(self, rows: list, top: float):
        self.rows, self.top = rows, top
        values = [value for row in rows for values in [row["limits"], *row["runs"].values()] for value in values if value > 0]
        self.low, self.high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)) + 1e-9)

    def x(self, column: int) -> float:
        return LEFT + (column + 0.5) / len(self.rows) * (RIGHT - LEFT)

    def y(self, value: float) -> float:
        return self.top + PANEL * (1 - (math.log10(value) - self.low) / (self.high - self.low))

    def axes(self, title: str, label: str) -> str:
        out = text(LEFT, self.top - 10, title, 'fill="#333"')
        for decade in range(self.low, self.high + 1):
            for digit in (1, 2, 5):
                if decade + math.log10(digit) > self.high + 1e-9:
                    continue
                y = self.y(digit * 10**decade)
                out += line(LEFT, y, RIGHT, y, "#bbb" if digit == 1 else "#e6e6e6")
                if digit == 1:
                    out += text(LEFT - 8, y + 4, f"{10**decade:,g}", 'text-anchor="end" fill="#333"')
        for column, row in enumerate(self.rows):
            out += text(self.x(column), self.top + PANEL + 18, str(row["tokens"]), 'text-anchor="middle" fill="#333"')
        return out + text((LEFT + RIGHT) / 2, self.top + PANEL + 36, label, 'text-anchor="middle" fill="#333"')

    def curve(self, name: str, columns: list, colour: str, style: str = "") -> str:
        """columns: the values of each column, empty where there are none; a bar from the smallest to the largest"""
        out, points = "", []
        for column, values in enumerate(columns):
            if not values:
                continue
            x, y = self.x(column), self.y(statistics.median(values))
            points.append(f"{x:.1f},{y:.1f}")
            out += line(x, self.y(min(values)), x, self.y(max(values)), colour)
            label = f"{name}, {self.rows[column]['tokens']}: {number(statistics.median(values))} tokens/s"
            out += f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"><title>{escape(label)}</title></circle>\n'
        return f'<polyline fill="none" stroke="{colour}" stroke-width="1.5" {style} points="{" ".join(points)}"/>\n' + out


def picture(results: dict, name: str) -> str:
    entry = results["models"][name]
    programs = list(entry["file_bytes"])
    height = TOP + 2 * PANEL + GAP + 60
    out = (f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" font-family="sans-serif" font-size="12">\n'
           f'<rect width="{WIDTH}" height="{height}" fill="white"/>\n')
    out += text(20, 30, f"{name}, {results['threads']} threads, {results['cpu']}", 'font-size="16"')
    for index, (kind, title, label) in enumerate((("prefill", "prefill, tokens/s", "tokens of the prompt"),
                                                  ("decode", "decode, tokens/s", "tokens before it"))):
        panel = Panel([row for row in entry["works"] if row["kind"] == kind], TOP + index * (PANEL + GAP))
        out += panel.axes(title, label)
        out += panel.curve("limit of the machine", [row["limits"] for row in panel.rows], "#888", 'stroke-dasharray="5 4"')
        for program, colour in zip(programs, COLOURS):
            out += panel.curve(program, [row["runs"][program] for row in panel.rows], colour)
    for index, (program, colour) in enumerate([("limit, Acorn's file", "#888"), *zip(programs, COLOURS)]):
        y = TOP + 16 + 20 * index
        out += f'<rect x="{RIGHT + 24}" y="{y - 9}" width="10" height="10" fill="{colour}"/>\n' + text(RIGHT + 40, y, program)
    return out + "</svg>\n"


def write(results: dict, out: pathlib.Path) -> None:
    out.with_suffix(".md").write_text(markdown(results, out), encoding="utf-8")
    for name in results["models"]:
        out.with_name(f"{out.name}-{name}.svg").write_text(picture(results, name), encoding="utf-8")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    path = pathlib.Path(sys.argv[1])
    write(json.loads(path.read_text(encoding="utf-8")), path.with_suffix(""))
