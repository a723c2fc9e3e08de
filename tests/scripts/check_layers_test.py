"""scripts/check_layers.py on a small tree: clean as it stands, and each planted violation is found."""
import pathlib
import subprocess
import sys
import tempfile
import unittest

CHECK = pathlib.Path(__file__).resolve().parents[2] / "scripts" / "check_layers.py"

TREE = {
    "kernels/CMakeLists.txt": "scrna_add_library(scrna_kernels SOURCES fast.cpp)",
    "kernels/fast.cpp": '#include "kernels/fast.h"',
    "lib/core/CMakeLists.txt": "scrna_add_library(scrna_core SOURCES log.cpp)",
    "lib/core/log.cpp": "#include <spdlog/spdlog.h>",
    "lib/data/CMakeLists.txt": "set(sources rows.cpp)\nscrna_add_library(scrna_data SOURCES ${sources} PUBLIC scrna_core)",
    "lib/data/rows.cpp": '#include <hdf5.h>\n#include "lib/core/log.h"',
    "lib/ops/CMakeLists.txt": "scrna_add_library(scrna_ops SOURCES op.cpp PUBLIC scrna_core PRIVATE scrna_kernels)",
    "lib/ops/op.cpp": '#include "kernels/fast.h"\n#include <ATen/core/Tensor.h>',
    "lib/model/CMakeLists.txt": "scrna_add_library(scrna_model SOURCES net.cpp PUBLIC scrna_ops)",
    "lib/model/net.cpp": '#include "lib/ops/op.h"\n#include "lib/core/log.h"',
    "tests/data/CMakeLists.txt": "scrna_add_test(data_tests SOURCES rows_test.cpp LIBRARIES scrna_data LABELS cpu)",
    "tests/data/rows_test.cpp": '#include "lib/data/rows.h"\n#include "lib/core/log.h"',
}


class CheckLayers(unittest.TestCase):
    def check(self, files=()):
        """Exit code and output on the tree with some files added or replaced."""
        with tempfile.TemporaryDirectory() as folder:
            for name, text in {**TREE, **dict(files)}.items():
                path = pathlib.Path(folder, name)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text + "\n", encoding="utf-8")
            done = subprocess.run([sys.executable, CHECK, folder], capture_output=True, text=True, check=False)
            return done.returncode, done.stdout

    def assert_found(self, files, expected):
        code, output = self.check(files)
        self.assertEqual(code, 1, output)
        self.assertIn(expected, output)
        self.assertIn("1 violations", output)

    def test_the_tree_as_it_stands_is_clean(self):
        code, output = self.check()
        self.assertEqual(code, 0, output)
        self.assertIn("0 violations", output)

    def test_an_include_that_points_up(self):
        code, output = self.check({"lib/data/rows.cpp": '#include "lib/model/net.h"'})
        self.assertEqual(code, 1)
        self.assertIn("lib/data/rows.cpp:1: lib/data may not include lib/model (lib/model/net.h)", output)

    def test_a_header_of_the_project_in_angle_brackets_is_someone_elses(self):
        code, output = self.check({"lib/data/rows.cpp": "#include <lib/model/net.h>"})
        self.assertEqual(code, 0, output)

    def test_a_link_that_points_up(self):
        self.assert_found(
            {"lib/core/CMakeLists.txt": "scrna_add_library(scrna_core SOURCES log.cpp PRIVATE scrna_ops)"},
            "lib/core/CMakeLists.txt: scrna_core may not link lib/ops")

    def test_a_third_party_header_outside_its_folder(self):
        self.assert_found({"lib/model/net.cpp": "#include <hdf5.h>"}, "lib/model/net.cpp:1: hdf5.h belongs in lib/data only")
        self.assert_found({"lib/data/rows.cpp": "#include <ATen/core/Tensor.h>"}, "lib/data/rows.cpp:1: ATen/core/Tensor.h belongs in")
        self.assert_found({"lib/ops/op.cpp": "#include <torch/csrc/distributed/c10d/Store.hpp>"}, "belongs in lib/dist only")

    def test_spdlog_is_for_one_file_only(self):
        self.assert_found(
            {"lib/core/CMakeLists.txt": "scrna_add_library(scrna_core SOURCES log.cpp files.cpp)",
             "lib/core/files.cpp": "#include <spdlog/spdlog.h>"},
            "lib/core/files.cpp:1: spdlog/spdlog.h belongs in lib/core/log.cpp only")

    def test_a_used_folder_that_is_not_linked(self):
        self.assert_found({"lib/ops/CMakeLists.txt": "scrna_add_library(scrna_ops SOURCES op.cpp PUBLIC scrna_core)"},
                          "lib/ops/op.cpp:1: includes kernels/fast.h, but scrna_ops does not link kernels")

    def test_a_test_may_compile_a_file_instead_of_linking_its_folder(self):
        code, output = self.check({
            "tests/apps/CMakeLists.txt": 'scrna_add_test(apps_tests SOURCES a_test.cpp "${PROJECT_SOURCE_DIR}/apps/tool/a.cpp")',
            "tests/apps/a_test.cpp": '#include "apps/tool/a.h"',
            "apps/tool/CMakeLists.txt": "add_executable(tool\n  a.cpp)",
            "apps/tool/a.cpp": ""})
        self.assertEqual(code, 0, output)

    def test_a_private_link_is_not_passed_on(self):
        self.assert_found({"tests/ops/CMakeLists.txt": "scrna_add_test(ops_tests SOURCES op_test.cpp LIBRARIES scrna_ops)",
                           "tests/ops/op_test.cpp": '#include "kernels/fast.h"'},
                          "ops_tests does not link kernels")

    def test_a_source_that_nothing_compiles(self):
        self.assert_found({"lib/data/forgotten.cpp": ""}, "lib/data/forgotten.cpp: in no CMakeLists.txt")

    def test_an_unknown_folder(self):
        code, output = self.check({"lib/misc/a.h": ""})
        self.assertEqual(code, 1)
        self.assertIn("lib/misc/a.h: its folder is unknown", output)

    def test_a_long_file_is_a_warning_only(self):
        code, output = self.check({"kernels/fast.h": "\n" * 400})
        self.assertEqual(code, 0)
        self.assertIn("warning: kernels/fast.h: 401 lines", output)


if __name__ == "__main__":
    unittest.main()
