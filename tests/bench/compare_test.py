"""bench/peers/compare.py and report.py: limits, ratios, table and pictures, of figures that are given. Nothing is measured."""
import json
import pathlib
import re
import sys
import tempfile
import unittest
from xml.etree import ElementTree

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "bench/peers"))
import compare  # noqa: E402
import programs  # noqa: E402
import report  # noqa: E402
from programs import Work  # noqa: E402

# 100 products a token in the body, 40 in the head; 200 bytes of weights; 8 bytes of keys and values a token, 2 heads for each.
INSPECTED = {"vocab_size": 10, "weights": [{"n": 10, "k": 4}, {"n": 5, "k": 12}, {"n": 8, "k": 5}, {"n": 10, "k": 4}]}
PLAN = {"chunk_tokens": 16, "rates": [{"weight_bytes": 200, "cache_row_bytes": 8, "state_bytes": 0}]}
MODEL = compare.Model(heads=4, kv_heads=2, context=64)


class Limits(unittest.TestCase):
    limits = compare.Limits(INSPECTED, PLAN, MODEL)

    def test_touched(self):
        self.assertEqual(self.limits.touched(Work("prefill", 17)), [(2 * 200, 17 * 100 + 40 + 17 * 18 // 2 * 16)])
        context = 30 + programs.GENERATED // 2
        self.assertEqual(self.limits.touched(Work("decode", 30)), [(200 + context * 8, 140 + context * 16)])
        self.assertEqual(self.limits.touched(Work("first_token", 1)), [(200, 140 + 16), (208, 140 + 16)])
        self.assertEqual(self.limits.touched(Work("start")), [])

    def test_experts(self):
        mixture = compare.Limits(INSPECTED, PLAN, compare.Model(heads=4, kv_heads=2, context=64, expert_products=1000))
        self.assertEqual(mixture.touched(Work("prefill", 1))[0][1] - self.limits.touched(Work("prefill", 1))[0][1], 1000)

    def test_states(self):
        plan = {"chunk_tokens": 16, "rates": [{"weight_bytes": 200, "cache_row_bytes": 0, "state_bytes": 30}]}
        states = compare.Limits(INSPECTED, plan, compare.Model(heads=0, kv_heads=0, context=64))
        self.assertEqual(states.touched(Work("prefill", 17)), [(2 * (200 + 2 * 30), 17 * 100 + 40)])
        self.assertEqual(states.touched(Work("decode", 30)), [(200 + 2 * 30, 140)])

    def test_the_slower_of_reads_and_products_counts(self):
        decode = Work("decode", 0)
        read, products = self.limits.touched(decode)[0]
        self.assertAlmostEqual(self.limits.limit(decode, {"GB/s": 1e-9, "GMAC/s": 1}), 1 / read)
        self.assertAlmostEqual(self.limits.limit(decode, {"GB/s": 1, "GMAC/s": 1e-9}), 1 / products)
        self.assertAlmostEqual(self.limits.limit(Work("prefill", 4), {"GB/s": 1, "GMAC/s": 1e-9}), 4 / (440 + 10 * 16))
        self.assertAlmostEqual(self.limits.limit(Work("first_token", 1), {"GB/s": 1e-9, "GMAC/s": 1}), 1e3 * (200 + 208))
        self.assertEqual(self.limits.limit(Work("start"), {"GB/s": 1, "GMAC/s": 1}), 0)

    def test_works_stay_in_the_context(self):
        for model in compare.MODELS.values():
            for work in compare.works(model, quick=False):
                self.assertLessEqual(work.tokens + (programs.GENERATED if work.kind == "decode" else 0), model.context)


def results() -> dict:
    runs = {"Acorn": [200.0, 100.0, 300.0], "llama.cpp Q4_0": [100.0, 100.0, 50.0]}
    memory = {program: [2.0**20] * 3 for program in runs}
    works = [{"kind": kind, "tokens": tokens, "name": f"{kind} {tokens}", "unit": unit, "limits": limits, "runs": runs,
              "peak_rss_bytes": memory}
             for kind, tokens, unit, limits in (("prefill", 32, "tokens/s", [400.0, 100.0, 400.0]), ("decode", 0, "tokens/s", [800.0] * 3),
                                                ("start", 0, "ms", [0, 0, 0]))]
    return {"cpu": "a < b", "cores": 2, "threads": 2, "backend": "x", "models": {"m": {
        "weights": "real", "pairs": 3, "measured": "2026-01-31, abcdef0", "file_bytes": {program: 1e6 for program in runs}, "weight_bytes_a_token": 1e6, "block_bytes": 2**20,
        "bounds": [{"GB/s": 10.0, "GMAC/s": 100.0}], "open_ms": [1.0], "works": works,
        "instructions": {"decode": {"Acorn": 2e7, "llama.cpp Q4_0": 5e7}}}}}


class Kept(unittest.TestCase):
    def test_models_of_the_same_machine_stay(self):
        with tempfile.TemporaryDirectory() as folder:
            out = pathlib.Path(folder) / "peers"
            self.assertEqual(compare.kept(out, results()), {})
            out.with_suffix(".json").write_text(json.dumps(results()), encoding="utf-8")
            self.assertEqual(list(compare.kept(out, results())), ["m"])
            for key, other in (("cpu", "b"), ("cores", 4), ("threads", 1), ("backend", "y")):
                with self.assertRaisesRegex(programs.ProgramError, key):
                    compare.kept(out, {**results(), key: other})

    def test_rounds_of_another_day_count(self):
        works = [{"name": "decode at 0", "runs": {"Acorn": [2.0], "llama.cpp Q4_0": [1.0]}}]
        before = {"file_bytes": {"Acorn": 7}, "works": works, "pairs": 5, "measured": "2026-01-01", "open_ms": [3.0],
                  "block_bytes": 1, "weight_bytes_a_token": 2}
        fresh = {"file_bytes": {"Acorn": 7}, "works": [{"name": "decode at 0", "runs": {"Acorn": [], "llama.cpp Q4_0": []}}],
                 "pairs": 0, "measured": "2026-01-02", "open_ms": [], "block_bytes": 3, "weight_bytes_a_token": 2}
        entry = compare.resumed(fresh, before)
        self.assertEqual((entry["pairs"], entry["works"], entry["block_bytes"]), (1, works, 3))
        with self.assertRaises(programs.ProgramError):
            compare.resumed({**fresh, "file_bytes": {"Acorn": 8}}, entry)

    def test_machines_are_told_apart(self):
        name = compare.cpu_name()
        self.assertNotIn("None", name)
        cpuinfo = open("/proc/cpuinfo", encoding="utf-8").read()
        for field in ("model name", "cpu family", "model"):
            for value in re.findall(rf"^{field}\s*: (.*)$", cpuinfo, re.MULTILINE):
                self.assertIn(value.strip(), name)


class Report(unittest.TestCase):
    def test_a_ratio_above_one_is_for_us(self):
        self.assertEqual(report.ratios([4.0, 6.0], [2.0, 2.0], True), [2.0, 3.0])
        self.assertEqual(report.ratios([4.0, 6.0], [2.0, 3.0], False), [0.5, 0.5])

    def test_table(self):
        rows = {line.split(" | ")[0].strip("| "): [cell.strip("| ") for cell in line.split(" | ")]
                for line in report.table(results()["models"]["m"]).splitlines()}
        self.assertEqual(rows["prefill 32"][2:], ["400", "200", "75 % (50 to 100)", "100", "2.00 × (1.00 to 6.00)"])
        self.assertEqual(rows["start 0"][2:], ["", "200", "", "100", "0.50 × (0.17 to 1.00)"])
        without = results()["models"]["m"]
        without["works"][0]["runs"]["llama.cpp Q4_0"] = []
        self.assertTrue(report.table(without).splitlines()[2].endswith("| 75 % (50 to 100) |  |  |"))
        self.assertEqual(rows["instructions a token, decode"][3:], ["20", "", "50", "2.50 × (2.50 to 2.50)"])

    def test_pictures_show_every_program_and_the_limit(self):
        with tempfile.TemporaryDirectory() as folder:
            out = pathlib.Path(folder) / "peers"
            report.write(results(), out)
            svg = ElementTree.parse(out.with_name("peers-m.svg"))
            self.assertIn("peers-m.svg", out.with_suffix(".md").read_text(encoding="utf-8"))
        space = "{http://www.w3.org/2000/svg}"
        self.assertEqual(len(svg.findall(space + "polyline")), 2 * 3)
        self.assertIn("a < b", "".join(text.text for text in svg.findall(space + "text")))


class Processes(unittest.TestCase):
    def test_memory_and_failure(self):
        process = programs.run([sys.executable, "-c", "print(len(bytearray(80 << 20)))"])
        self.assertEqual(process.out.strip(), str(80 << 20))
        self.assertGreater(process.peak_rss_bytes, 80 << 20)
        with self.assertRaisesRegex(programs.ProgramError, "exit code 3\nwhy"):
            programs.run([sys.executable, "-c", "import sys; print('why', file=sys.stderr); sys.exit(3)"])


if __name__ == "__main__":
    unittest.main()
