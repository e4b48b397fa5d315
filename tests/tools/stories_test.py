"""What examples/stories writes and keeps back, and how ./dev drafts counts."""

import importlib.util
import json
import pathlib
import random
import re
import subprocess
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
STORIES = ROOT / "examples/stories"


def load(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


stories = load(STORIES / "write_stories.py")


def written(*args):
    command = [sys.executable, "-B", STORIES / "write_stories.py", *args]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


class Stories(unittest.TestCase):
    def test_the_same_seed_gives_the_same_bytes_and_longer_files_begin_alike(self):
        self.assertEqual(written("20"), written("20"))
        self.assertTrue(written("30").startswith(written("20")))
        self.assertNotEqual(written("20"), written("20", "--seed", "2"))

    def test_sums_are_right_at_every_step(self):
        for line in written("300").splitlines():
            text = json.loads(line)["text"]
            for a, sign, b, result in re.findall(r"So (\d+) ([+-]) (\d+) = (\d+)\.", text):
                self.assertEqual(int(a) + (int(b) if sign == "+" else -int(b)), int(result))
            for a, b, one, s in re.findall(r": (\d) plus (\d)( and 1 more)? is (\d+)\.", text):
                self.assertEqual(int(a) + int(b) + bool(one), int(s))
            for a, b, d in re.findall(r"[:.] (\d+) minus (\d) is (\d)\.", text):
                self.assertEqual(int(a) - int(b), int(d))

    def test_digits_that_are_written_make_the_result(self):
        rng = random.Random(1)
        for _ in range(500):
            a, b = rng.randint(12, 89), rng.randint(3, 89)
            for work, result in ((stories.worked_sum(a, b), a + b),
                                 (stories.worked_difference(max(a, b), min(a, b)), abs(a - b))):
                digits = re.findall(r"We write (\d)", work)
                self.assertEqual(int("".join(reversed(digits))), result, work)

    def test_answers_stand_in_the_story(self):
        for line in written("200").splitlines():
            story, *rest = json.loads(line)["text"].split("\nQuestion: ")
            for part in rest:
                name = re.search(r"(?:did|of) ([A-Z]\w+)", part.split("\n")[0])
                if name:
                    self.assertIn(name[1], story)


class HoldOut(unittest.TestCase):
    def test_held_out_texts_are_in_no_other_file_and_prompts_are_their_beginnings(self):
        with tempfile.TemporaryDirectory() as folder:
            folder = pathlib.Path(folder)
            (folder / "out").mkdir()
            (folder / "a.jsonl").write_text(written("40"))
            (folder / "short.jsonl").write_text('{"text": "too short"}\n')
            subprocess.run(
                [sys.executable, "-B", STORIES / "hold_out.py", "--out", folder / "out", "--prompts", folder / "prompts.jsonl",
                 "--each", "5", "--words", "30", folder / "a.jsonl", folder / "short.jsonl"],
                check=True,
            )
            texts = [json.loads(line)["text"] for line in (folder / "a.jsonl").read_text().splitlines()]
            kept = [json.loads(line)["text"] for line in (folder / "out/a.jsonl").read_text().splitlines()]
            prompts = [json.loads(line)["prompt"] for line in (folder / "prompts.jsonl").read_text().splitlines()]
            self.assertEqual((len(kept), len(prompts)), (35, 5))
            for prompt, text in zip(prompts, [t for t in texts if t not in kept], strict=True):
                self.assertTrue(text.startswith(prompt))
                self.assertEqual(len(prompt.split()), 30)
            self.assertEqual((folder / "out/short.jsonl").read_text(), '{"text": "too short"}\n')


FAKE = r'''#!/usr/bin/env python3
import json, pathlib, sys
drafted = "--speculate" in sys.argv
ids = [1, 2, 3, 4, 5, 1, 2, 3, 4, 9]
if drafted and "--wrong" in sys.argv: ids[3] = 7
timings = dict(decode_s=0.5 if drafted else 1.0, drafted=6 * drafted, accepted=5 * drafted, steps=5 if drafted else 10,
               drafted_at=[4, 2] if drafted else [], accepted_at=[4, 1] if drafted else [])
line = dict(ids=ids, text="", usage=dict(completion_tokens=10), timings=timings)
pathlib.Path(sys.argv[sys.argv.index("--out") + 1]).write_text(json.dumps(line) + "\n")
'''


class MeasureDrafts(unittest.TestCase):
    def measured(self, *flags):
        with tempfile.TemporaryDirectory() as folder:
            kogia = pathlib.Path(folder) / "kogia"
            kogia.write_text(FAKE)
            kogia.chmod(0o755)
            return subprocess.run(
                [sys.executable, "-B", ROOT / "tools/measure_drafts.py", kogia, "model", "--how", "mtp", "--prompts", "x.jsonl",
                 "--rounds", "2", "--temperature", "0", *flags],
                capture_output=True, text=True,
            )

    def test_prints_rates_places_steps_and_distinct_4grams(self):
        run = self.measured()
        self.assertEqual(run.returncode, 0, run.stderr)
        self.assertEqual(run.stdout.splitlines()[-1], "| x | 0 | 10 | 10 | 20 | 2.00 | 5 of 6 (1.00, 0.50) | 2.00 | 0.86 | yes |")

    def test_fails_where_answers_differ(self):
        run = self.measured("--", "--wrong")
        self.assertNotEqual(run.returncode, 0)
        self.assertIn("| NO |", run.stdout)


if __name__ == "__main__":
    unittest.main()
