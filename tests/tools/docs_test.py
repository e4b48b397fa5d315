"""Files that the documents name exist, and links inside them lead somewhere."""

import pathlib
import re
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
SOURCE = re.compile(r"`((?:[a-z0-9_]+/)*[a-z0-9_]+(?:-inl)?\.(?:cc|h|py|sh))`")
LINK = re.compile(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)")


class Documents(unittest.TestCase):
    def test_named_source_files_exist(self):
        files = {path.relative_to(ROOT).as_posix() for top in ("src", "tests", "tools", "bench", "include", "examples")
                 for path in (ROOT / top).rglob("*") if path.is_file()}
        for document in DOCUMENTS:
            for name in SOURCE.findall(document.read_text()):
                with self.subTest(document=document.name, file=name):
                    self.assertTrue(any(f == name or f.endswith("/" + name) for f in files))

    def test_links_lead_somewhere(self):
        for document in DOCUMENTS:
            for target in LINK.findall(document.read_text()):
                with self.subTest(document=document.name, link=target):
                    self.assertTrue((document.parent / target).exists())

    def test_the_page_of_commands_is_made_from_its_source(self):
        source, page = ((ROOT / "docs" / name).read_text() for name in ("commands.in", "commands.md"))
        place = 0
        for block in re.split(r"^@.*\n", source, flags=re.M):
            for line in filter(None, block.split("\n")):
                found = page.find(line + "\n", place)
                self.assertNotEqual(found, -1, f"docs/commands.md lacks {line!r}: run ./dev docs")
                place = found + len(line)
        for line in re.findall(r"^@sh (.*)$", source, flags=re.M):
            with self.subTest(command=line):
                self.assertRegex(page, re.escape(f"$ {line}\n") + r"(?!\$ |```|\n)")

    def test_every_document_is_listed(self):
        listed = LINK.findall((ROOT / "docs/README.md").read_text())
        for path in (ROOT / "docs").rglob("*.md"):
            name = path.relative_to(ROOT / "docs").as_posix()
            self.assertIn(name, [*listed, "README.md"], f"docs/README.md does not link {name}")

    def test_decisions_are_numbered_once(self):
        numbers = [path.name[:4] for path in (ROOT / "docs" / "decisions").glob("*.md")]
        self.assertEqual(sorted(numbers), sorted(set(numbers)))


if __name__ == "__main__":
    unittest.main()
