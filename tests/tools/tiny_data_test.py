"""examples/tiny/get-data without a network: an apt-get of our own hands it packages of a few articles."""

import gzip
import importlib.util
import json
import os
import pathlib
import shutil
import struct
import subprocess
import tempfile
import unittest

TINY = pathlib.Path(__file__).resolve().parents[2] / "examples/tiny"
SPEC = importlib.util.spec_from_file_location("clean_text", TINY / "clean_text.py")
clean = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(clean)

GCIDE = '''Calm \\Calm\\ (k[aum]m), a. [Compar. {Calmer}; superl. {Calmest}.]
   1. Not stormy; without motion, as of winds or waves; still;
      quiet. "Calm was the day." --Spenser.
      [1913 Webster]

   2. Not agitated. [Obs.] See {Quiet}. [AS. calm.] [PJC]
      [1913 Webster +PJC]

   Syn: Still; quiet; fin['e]e; [ae]on.
        [WordNet 1.5]
'''
FOLDOC = """Columbia AppleTalk Package

   <networking> (CAP) An implementation of {Apple Computer}'s
   {AppleTalk} {protocols}.

   {Home (http://example.org/)}.

   (1995-01-10)

"""
BIBLE = "Holy Bible.\nGe1:1 In the beginning.\nGe1:2 And the earth was.\nGe2:1 Thus the heavens.\n1Jo1:1 That which was.\n"
PAGE = """<?xml version="1.0"?><html><head><title>no</title></head><body><div id="banner">no</div><p id="title">no</p>
<ul class="docnav top"><li><a href="x">no</a></li></ul><h2 class="title"><a id="x"></a>1.6. Life</h2><div class="para">
  One <span>and</span> two three &amp; four.</div><pre class="screen">no</pre><ul><li><div class="para">five</div></li></ul>
</body></html>"""


def compressed(text):
    """As `compress` writes it, each byte a code of 9 bits: valid while there are no more than 255."""
    assert len(text) < 255
    bits = sum(byte << (9 * i) for i, byte in enumerate(text))
    return bits.to_bytes((9 * len(text) + 7) // 8, "little")


def bible_file(text):
    half = len(text) // 2
    windows = [compressed(part.encode()) for part in (text[:half], text[half:])]
    begin = 0x5C + 4 * 3 + 3
    offsets = [begin, begin + len(windows[0]), begin + len(windows[0]) + len(windows[1])]
    return b"\0" * 0x58 + struct.pack(">4I", 2, *offsets) + b"\x1f\x9d\x90" + b"".join(windows)


def base64_digits(number):
    digits = ""
    while number or not digits:
        digits, number = clean.BASE64[number % 64] + digits, number // 64
    return digits


def dictionary(articles):
    """The bytes and the index of dictd, each article under two words."""
    data, index = b"00-database-info\n", "00-database-info\tA\tR\n"
    for i, article in enumerate(articles):
        for word in (f"word{i}", f"other{i}"):
            index += f"{word}\t{base64_digits(len(data))}\t{base64_digits(len(article.encode()))}\n"
        data += article.encode()
    return data, index


class Cleaning(unittest.TestCase):
    def test_gcide_loses_its_marks_and_keeps_its_words(self):
        self.assertEqual(
            clean.clean_gcide(GCIDE),
            "Calm (k[aum]m), a. [Compar. Calmer; superl. Calmest.] 1. Not stormy; without motion, as of winds or "
            'waves; still; quiet. "Calm was the day." --Spenser.\n'
            "2. Not agitated. [Obs.] See Quiet. [AS. calm.]\n"
            "Syn: Still; quiet; finée; æon.")

    def test_foldoc_loses_topics_links_and_dates(self):
        self.assertEqual(clean.clean_foldoc(FOLDOC),
                         "Columbia AppleTalk Package\n(CAP) An implementation of Apple Computer's AppleTalk protocols.")

    def test_a_page_of_the_handbook_is_its_headings_and_paragraphs(self):
        self.assertEqual(clean.clean_handbook(PAGE), "1.6. Life\nOne and two three & four.\nfive")

    def test_the_bible_is_unpacked_and_cut_into_chapters(self):
        text = clean.bible_text(bible_file(BIBLE))
        self.assertEqual(text, BIBLE)
        self.assertEqual(list(clean.bible_chapters(text)),
                         ["In the beginning. And the earth was.", "Thus the heavens.", "That which was."])

    def test_an_article_under_many_words_comes_once(self):
        articles = ["one\n", "two\n" * 30, "three\n"]
        self.assertEqual(list(clean.dictd_articles(*dictionary(articles))), articles)


@unittest.skipUnless(shutil.which("dpkg-deb"), "makes packages with dpkg-deb")
class GetData(unittest.TestCase):
    PACKAGES = {"dict-gcide": "gcide", "dict-foldoc": "foldoc", "dict-jargon": "jargon", "bible-kjv-text": "bible",
                "debian-handbook": "handbook"}

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.root = pathlib.Path(folder.name)
        self.tiny = self.root / "a cache/data/tiny"
        self.log = self.root / "log"
        self.make_packages()
        self.program("apt-cache", "true")
        self.program("apt-get", f'echo "fetch ${{@: -1}}" >> "{self.log}"\ncp "{self.root}/debs/${{@: -1}}"_1_all.deb .')
        # Asked for a vocabulary, it says what of.
        self.program("kogia", f'echo "$*" >> "{self.log}"\nout="${{@: -1}}"\nmkdir -p "$out"\n'
                              'echo "{}" > "$out/tokenizer.json"')

    def program(self, name, body):
        path = self.root / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("#!/usr/bin/env bash\nset -e\n" + body + "\n")
        path.chmod(0o755)

    def make_packages(self):
        for package in self.PACKAGES:
            root = self.root / "build" / package
            (root / "DEBIAN").mkdir(parents=True)
            (root / "DEBIAN/control").write_text(
                f"Package: {package}\nVersion: 1\nArchitecture: all\nMaintainer: n <n@n.n>\nDescription: x\n")
        for name, article in (("gcide", GCIDE * 3), ("foldoc", FOLDOC + "   more" * 30), ("jargon", "x /eks/ n.\n\n" + "y " * 99)):
            folder = self.root / f"build/dict-{name}/usr/share/dictd"
            folder.mkdir(parents=True)
            data, index = dictionary([article])
            (folder / f"{name}.dict.dz").write_bytes(gzip.compress(data))
            (folder / f"{name}.index").write_text(index)
        bible = self.root / "build/bible-kjv-text/usr/lib/bible.data"
        bible.parent.mkdir(parents=True)
        bible.write_bytes(bible_file("Ge1:1 " + "and the earth " * 10))
        page = self.root / "build/debian-handbook/usr/share/doc/debian-handbook/html/en-US/sect.html"
        page.parent.mkdir(parents=True)
        page.write_text(PAGE.replace("five", "five " * 40))
        (self.root / "debs").mkdir()
        for package in self.PACKAGES:
            subprocess.run(["dpkg-deb", "--root-owner-group", "-b", self.root / "build" / package,
                            self.root / f"debs/{package}_1_all.deb"], check=True, stdout=subprocess.DEVNULL)

    def get_data(self, *flags):
        environment = os.environ | {"PATH": f"{self.root}/bin:{os.environ['PATH']}", "KOGIA_CACHE": f"{self.root}/a cache",
                                    "KOGIA": str(self.root / "bin/kogia")}
        done = subprocess.run([TINY / "get-data", *flags], env=environment, capture_output=True, text=True)
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return done, lines

    def test_makes_what_the_run_file_names_once(self):
        done, first = self.get_data()
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual([line for line in first if line.startswith("fetch")], [f"fetch {p}" for p in self.PACKAGES])
        self.assertIn("tokenizer train gcide.jsonl foldoc.jsonl jargon.jsonl bible.jsonl handbook.jsonl --vocab-size 4096",
                      first[-1])
        for kind in self.PACKAGES.values():
            with self.subTest(kind):
                lines = (self.tiny / f"{kind}.jsonl").read_text().splitlines()
                self.assertGreaterEqual(len(json.loads(lines[0])["text"]), 120)
                self.assertEqual(len(lines), 1)
                self.assertRegex(done.stdout, rf"{kind}\.jsonl +1 texts")
                self.assertIn(f'"$KOGIA_CACHE/data/tiny/{kind}.jsonl"', (TINY / "pretrain.toml").read_text())
        self.assertTrue((self.tiny / "tokenizer/tokenizer.json").exists())
        self.assertEqual([p.name for p in self.tiny.iterdir() if p.name.startswith(".")], [], "work that was left")

        again, lines = self.get_data()
        self.assertEqual((again.returncode, again.stdout), (0, done.stdout))
        self.assertEqual(lines, first, "what is there costs nothing")
        (self.tiny / "bible.jsonl").unlink()
        _, lines = self.get_data()
        self.assertEqual(len(lines), len(first) + 1, "made anew, of the packages that are there")
        _, lines = self.get_data("--fresh")
        self.assertEqual(len(lines), len(first) + 2)

    def test_what_goes_wrong_is_said_and_leaves_nothing_half_done(self):
        self.program("apt-get", 'echo no > half.deb\nexit 1')
        done, _ = self.get_data()
        self.assertEqual(done.returncode, 1)
        self.assertIn("apt-get could not fetch dict-gcide", done.stderr)
        self.assertEqual(list((self.root / "a cache/data/packages").glob("*.deb")), [])
        self.assertFalse((self.tiny / "made-by").exists())

        self.program("apt-cache", "exit 100")
        done, _ = self.get_data()
        self.assertEqual(done.returncode, 1)
        self.assertIn("apt-get update", done.stderr)

        done, _ = self.get_data("--all")
        self.assertEqual(done.returncode, 1)
        self.assertIn("unknown flag '--all'", done.stderr)


if __name__ == "__main__":
    unittest.main()
