"""./dev compare with programs that only say numbers: what it runs, what it remembers, what it makes of it."""

import json
import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

COMPARE = pathlib.Path(__file__).resolve().parents[2] / "tools/compare.py"

# Kogia: prefill 400 (int8 800), decode 100, at depth 4096 50: 10 ms more a token. The cache grows by 1 GB.
KOGIA = """#!{python}
import json, pathlib, sys
log = pathlib.Path({log!r})
with log.open("a") as file:
    print("kogia", *sys.argv[1:], file=file)
flag = lambda name: sys.argv[sys.argv.index(name) + 1]
if sys.argv[1] == "synth":
    pathlib.Path(flag("-o")).write_text("model")
    pathlib.Path(flag("-o") + ".kpk").write_text("as --keep-packed leaves it")
    sys.exit()
int8, deep = "int8" in sys.argv, flag("--depth") == "4096"
if int8 and pathlib.Path({fail!r}).exists():
    sys.exit("cannot")
print(json.dumps(dict(device="cpu/test", processor="Test", threads=2, read_gb_s=200.0, f32_gflop_s=1.0,
                      bf16_gflop_s=2.0, int8_gop_s=None)))
for batch in map(int, flag("--batch").split(",") if "--batch" in sys.argv else []):
    # 100 tok/s alone, 300 beside others; int8 half as much again; of the bandwidth 50 % alone, of the peak 40 % at 16
    print(json.dumps(dict(prompt=0, batch=batch, decode_tok_s=(100 if batch == 1 else 300) * (1.5 if int8 else 1),
                          bandwidth_share=0.5 / batch, decode_peak_share=0.025 * batch, compute="int8" if int8 else "bf16",
                          weight_bytes_per_token=10**9 / batch)))
for prompt in map(int, flag("--prompt").split(",")) if "--batch" not in sys.argv else []:
    print(json.dumps(dict(prompt=prompt, prefill_tok_s=(800 if int8 else 400) if prompt else None,
                          decode_tok_s=50.0 if deep else 100.0, peak_share=0.5 if prompt else None,
                          bandwidth_share=0.25, prefill_tok_s_per_cpu=200.0, decode_tok_s_per_cpu=50.0, compute="int8" if int8 else "bf16", weight_bytes_per_token=5,
                          cache_bytes_per_token=10**9 + 1 if deep else 1)))
"""
# llama.cpp: prefill 100, decode 80, at depth 4096 16: 50 ms more a token.
LLAMA = """#!{python}
import json, pathlib, sys
with pathlib.Path({log!r}).open("a") as file:
    print("llama", *sys.argv[1:], file=file)
flag = lambda name: sys.argv[sys.argv.index(name) + 1]
rows = [dict(n_prompt=int(n), n_gen=0, samples_ts=[90, 100, 110]) for n in flag("-p").split(",") if n != "0"]
rows.append(dict(n_prompt=0, n_gen=int(flag("-n")), samples_ts=[16 if flag("-d") == "4096" else 80]))
print(json.dumps(rows))
"""
# llama.cpp: 50 tok/s alone, 150 of 4 and 60 of more sequences; other lines stand between.
BATCHED = """#!{python}
import json, pathlib, sys
with pathlib.Path({log!r}).open("a") as file:
    print("batched", *sys.argv[1:], file=file)
print("main: n_kv_max = 6144")
for n in map(int, sys.argv[sys.argv.index("-npl") + 1].split(",")):
    print(json.dumps(dict(n_kv_max=6144, pp=32, tg=64, pl=n, n_kv=96 * n, t_tg=1.0, speed_pp=999.0,
                          speed_tg={{1: 50.0, 4: 150.0}}.get(n, 60.0), speed=1.0)))
    print()
"""


class Compare(unittest.TestCase):
    def setUp(self):
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.folder = pathlib.Path(temporary.name)
        self.log, self.fail = self.folder / "log", self.folder / "fail"
        for name, source in (("kogia", KOGIA), ("llama-bench", LLAMA), ("llama-batched-bench", BATCHED)):
            self.write_program(name, source)
        (self.folder / "smollm.gguf").write_text("model")

    def write_program(self, name, source):
        program = self.folder / name
        program.write_text(source.format(python=sys.executable, log=str(self.log), fail=str(self.fail)))
        program.chmod(0o755)

    def compare(self, *flags):
        return subprocess.run(
            [sys.executable, "-B", COMPARE, "--kogia", self.folder / "kogia", "--llama-bench", self.folder / "llama-bench",
             "--llama-batched-bench", self.folder / "llama-batched-bench", "--smollm", self.folder / "smollm.gguf", "--work", self.folder / "work", "--rounds", "2", *flags],
            capture_output=True, text=True)

    def calls(self, *words):
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return [line for line in lines if all(word in line for word in words)]

    def test_each_engine_runs_once_a_round_and_made_files_go(self):
        done = self.compare("--rows", "mini-q4_k")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(len(self.calls("kogia synth mini", "--weights Q4_K")), 1)
        self.assertEqual(len(self.calls("llama", "-p 32,512", "-d 0", "-t 2")), 2)
        self.assertEqual(len(self.calls("llama", "-p 0", "-d 4096")), 2)
        self.assertEqual(len(self.calls("kogia bench", "--compute int8")), 4)
        self.assertEqual(len(self.calls("kogia bench")), 8)
        self.assertEqual(list((self.folder / "work/models").iterdir()), [])

    def test_the_table_holds_ratios_shares_and_aims(self):
        rows = {tuple(cell.strip() for cell in line.split("|")[1:4]): [cell.strip() for cell in line.split("|")[4:-1]]
                for line in self.compare("--rows", "mini-q4_k").stdout.splitlines() if line.startswith("| mini")}
        self.assertEqual(rows["mini-q4_k", "prefill 512", "bf16"], ["400 (400–400)", "100 (100–100)", "4.00", "50%", ""])
        self.assertEqual(rows["mini-q4_k", "prefill 512", "int8"][2], "8.00")
        self.assertEqual(rows["mini-q4_k", "decode 64", "bf16"][2:], ["1.25", "25%", "≥ 2.5× or 45%: missed"])
        # 10 ms against 50 ms; 1 GB in 10 ms is half of 200 GB/s
        self.assertEqual(rows["mini-q4_k", "extra ms at 4096", "bf16"],
                         ["10 (10–10)", "50 (50–50)", "5.00", "50%", "≥ 5× or 50%: met"])
        self.assertEqual((self.folder / "work/table.md").read_text(), self.compare("--rows", "mini-q4_k", "--table").stdout)

    def test_a_second_time_runs_nothing_and_other_programs_run_anew(self):
        self.compare("--rows", "smollm")
        self.log.unlink()
        self.assertEqual(self.compare("--rows", "smollm").returncode, 0)
        self.assertEqual(self.calls(), [])
        self.compare("--rows", "smollm", "--rounds", "3")
        self.assertEqual(len(self.calls()), 3, "the third round alone")
        self.write_program("kogia", KOGIA + "# another build\n")
        self.log.unlink()
        self.compare("--rows", "smollm")
        self.assertEqual(len(self.calls()), 6)
        self.log.unlink()
        self.compare("--rows", "smollm", "--fresh")
        self.assertEqual(len(self.calls()), 6)

    def test_after_a_failure_only_what_is_missing_runs(self):
        self.fail.write_text("")
        done = self.compare("--rows", "mini-q8_0")
        self.assertEqual(done.returncode, 1)
        self.assertIn("cannot", done.stderr)
        self.assertEqual(list((self.folder / "work/models").iterdir()), [], "deleted all the same")
        self.fail.unlink()
        self.log.unlink()
        self.assertEqual(self.compare("--rows", "mini-q8_0").returncode, 0)
        self.assertEqual(len(self.calls("kogia bench", "int8")), 2)
        self.assertEqual(len(self.calls()), 3, "and the file is made again")

    def test_a_line_that_a_stop_cut_off_does_not_count(self):
        self.compare("--rows", "smollm")
        results = self.folder / "work/results.jsonl"
        text = results.read_text()
        results.write_text(text[: len(text) - 30])
        self.log.unlink()
        done = self.compare("--rows", "smollm")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("line 6 is damaged", done.stderr)
        self.assertEqual(len(self.calls()), 1)
        records = [json.loads(line) for line in results.read_text().splitlines() if line.endswith("}")]
        self.assertEqual(len(records), 6)

    def test_beside_busy_processes_each_runs_again(self):
        done = self.compare("--rows", "mini-q4_k", "--busy", "2", "--threads", "1")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(len(self.calls("llama")), 4, "twice alone, twice beside, no other depth")
        self.assertEqual(len(self.calls("llama", "-p 512", "-n 16", "--no-warmup")), 2)
        self.assertEqual(len(self.calls("kogia bench")), 8)
        row = next(line for line in done.stdout.splitlines() if "decode | kogia |" in line)
        cores = len(os.sched_getaffinity(0))
        fair = min(1, cores / 3)
        self.assertIn(f"| 100 | 100 | {1 / fair:.0%} | 100% |", row)
        self.assertIn("2 busy processes", done.stdout)
        self.assertEqual(self.compare("--rows", "mini-q4_k", "--threads", "1").returncode, 0)
        self.assertEqual(len(self.calls("llama")), 6, "the other depth; what ran alone counts here too")

    def test_many_sequences_have_a_table_of_their_own(self):
        done = self.compare("--parallel", "--rows", "1.5b")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(len(self.calls("batched", "-c 6144", "-npp 32", "-ntg 64", "-npl 1,4,16,64")), 2)
        self.assertEqual(len(self.calls("kogia bench", "--prompt 0 --gen 64 --depth 32 --batch 1,4,16,64")), 4)
        self.assertEqual(len(self.calls()), 7, "and the file was made once")
        rows = {tuple(cell.strip() for cell in line.split("|")[2:4]): [cell.strip() for cell in line.split("|")[4:-1]]
                for line in done.stdout.splitlines() if line.startswith("| r1")}
        self.assertEqual(len(rows), 8)
        self.assertEqual(rows["1", "bf16"], ["100 (100–100)", "50 (50–50)", "2.00", "1", "50%", "2%", ""])
        self.assertEqual(rows["16", "bf16"], ["300 (300–300)", "60 (60–60)", "5.00", "1", "3%", "40%", "≥ 3× or 55%: met"])
        self.assertEqual(rows["4", "int8"][2], "3.00")
        self.assertEqual((self.folder / "work/parallel.md").read_text(), done.stdout)
        self.log.unlink()
        self.compare("--parallel", "--rows", "1.5b")
        self.assertEqual(self.calls(), [])
        self.compare("--rows", "smollm")
        self.assertEqual(len(self.calls("llama")), 2, "and they count for nothing else")

    def test_many_sequences_that_are_behind_are_spoken_out(self):
        self.write_program("llama-batched-bench", BATCHED.replace("150.0", "400.0").replace("60.0", "200.0"))
        done = self.compare("--parallel", "--rows", "mini", "--rounds", "1")
        rows = [line for line in done.stdout.splitlines() if line.startswith("| mini")]
        self.assertEqual([line.split("|")[2].strip() for line in rows if "**behind**" in line], ["4"])
        self.assertIn("≥ 4×: missed", done.stdout)

    def test_the_aim_of_being_ahead_is_spoken_out(self):
        self.write_program("llama-bench", LLAMA.replace("else 80", "else 200"))
        self.assertIn("**behind**", self.compare("--rows", "smollm").stdout)

    def test_wrong_use_is_named(self):
        for flags, part in ((("--rows", "mini,whale"), "nothing is called 'whale'"), (("--rows", "mini,"), "''"),
                            (("--rounds", "0"), "--rounds is 0"),
                            (("--parallel", "--busy", "2"), "--parallel goes with"), (("--busy", "-1"), "--busy is -1"), ((str(self.folder / "no.gguf"),), "no such file")):
            done = self.compare(*flags)
            self.assertEqual(done.returncode, 2, flags)
            self.assertIn(part, done.stderr)
            self.assertEqual(done.stdout, "")


if __name__ == "__main__":
    unittest.main()
