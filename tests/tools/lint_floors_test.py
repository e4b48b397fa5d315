"""The floor check sees an arrow that points up, and lets a proper tree pass."""

import pathlib
import subprocess
import sys
import tempfile
import unittest

CHECKER = pathlib.Path(__file__).resolve().parents[2] / "tools" / "lint_floors.py"


class LintFloors(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.root = pathlib.Path(self.folder.name)
        self.write("base/CMakeLists.txt", "kogia_library(base FLOOR 0 LINK fmt::fmt)\n")
        self.write("tensor/CMakeLists.txt", "kogia_library(tensor FLOOR 1 DEPS base)\n")
        self.write("model/CMakeLists.txt", "kogia_library(model FLOOR 4 DEPS base tensor LINK x)\n")
        self.write("base/a.h", "#pragma once\n")
        self.write("tensor/b.h", '#pragma once\n#include "base/a.h"\n')

    def write(self, name, text):
        path = self.root / "src" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def check(self):
        return subprocess.run([sys.executable, CHECKER, "--graph", self.root], capture_output=True, text=True)

    def expect_problem(self, *words):
        done = self.check()
        self.assertEqual(done.returncode, 1)
        for word in words:
            self.assertIn(word, done.stderr)

    def test_a_proper_tree_passes_and_is_drawn(self):
        done = self.check()
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertIn("1  tensor   -> base (1)", done.stdout)

    def test_an_include_that_points_up_is_named(self):
        self.write("base/deep/c.cc", '#include "base/a.h"\n #include "tensor/b.h"\n')
        self.expect_problem("src/base/deep/c.cc:2", "tensor")

    def test_a_folder_that_names_a_higher_floor_is_refused(self):
        self.write("tensor/CMakeLists.txt", "kogia_library(tensor FLOOR 1 DEPS base model)\n")
        self.expect_problem("floor 1 may not use model (floor 4)")

    def test_an_include_without_a_dependency_is_named(self):
        self.write("model/CMakeLists.txt", "kogia_library(model FLOOR 4 DEPS base)\n")
        self.write("model/m.cc", '#include "tensor/b.h"\n')
        self.expect_problem("src/model/m.cc:1")

    def test_a_header_without_pragma_once_and_a_long_file_are_named(self):
        self.write("base/d.h", "int x;\n")
        self.write("base/e.cc", "\n" * 5000)
        self.expect_problem("src/base/d.h: no #pragma once", "src/base/e.cc: 5000 lines")

    def test_a_wrong_folder_is_no_success(self):
        with tempfile.TemporaryDirectory() as empty:
            done = subprocess.run([sys.executable, CHECKER, empty], capture_output=True)
            self.assertEqual(done.returncode, 1)


if __name__ == "__main__":
    unittest.main()
