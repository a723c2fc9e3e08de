"""The options of the scripts: every script explains itself, and a mistake is named at once, before
anything is installed or built."""
import pathlib
import subprocess
import unittest

SCRIPTS = pathlib.Path(__file__).resolve().parents[2] / "scripts"


class Options(unittest.TestCase):
    def run_script(self, name, *arguments):
        return subprocess.run([SCRIPTS / name, *arguments], text=True, capture_output=True, stdin=subprocess.DEVNULL, check=False)

    def assert_refused(self, code, words, name, *arguments):
        done = self.run_script(name, *arguments)
        self.assertEqual((done.returncode, done.stdout), (code, ""), done.stderr)
        self.assertIn(words, done.stderr)
        self.assertEqual(done.stderr.count("\n"), 1, done.stderr)

    def test_every_script_explains_itself(self):
        for name in ("build.sh", "test.sh", "demo.sh", "fetch_libtorch.sh", "install_packages.sh",
                     "bench_train_table.sh", "experiment_twins.sh"):
            done = self.run_script(name, "--help")
            self.assertEqual((done.returncode, done.stderr), (0, ""))
            self.assertTrue(done.stdout.startswith(name), done.stdout)
            self.assertNotIn("set -euo", done.stdout)

    def test_build(self):
        self.assert_refused(2, "unknown option --cdua", "build.sh", "--cdua", "ON")
        self.assert_refused(2, "expected AUTO, ON or OFF, got on", "build.sh", "--cuda", "on")
        self.assert_refused(2, "expected release, dev or asan, got debug", "build.sh", "--preset", "debug")
        self.assert_refused(2, "--jobs: expected a whole number from 1, got 0", "build.sh", "--jobs", "0")
        self.assert_refused(2, "--target needs a value", "build.sh", "--target")

    def test_bench_train_table(self):
        self.assert_refused(2, "there is no configs/200m.yaml", "bench_train_table.sh", "200m")
        self.assert_refused(2, "there is no program nowhere", "bench_train_table.sh", "--program", "nowhere")
        self.assert_refused(2, "unknown option --modle", "bench_train_table.sh", "--modle", "70m")

    def test_experiment_twins(self):
        self.assert_refused(2, "expected DATA_FOLDER and OUT, got 1 places", "experiment_twins.sh", "cells")
        self.assert_refused(2, "unknown option --step", "experiment_twins.sh", "--step", "4", "cells", "out")
        self.assert_refused(2, "--steps: expected a whole number from 1, got 0", "experiment_twins.sh", "--steps", "0", "cells", "out")
        self.assert_refused(2, "--rate-steps: expected a whole number from 1, got x", "experiment_twins.sh", "--rate-steps", "x", "cells", "out")
        self.assert_refused(2, "--rate-steps: they are of the trials of --rates", "experiment_twins.sh", "--rate-steps", "5", "cells", "out")
        self.assert_refused(2, "--rates: expected numbers with commas between them, got 1e-3;2", "experiment_twins.sh", "--rates", "1e-3;2", "cells", "out")
        self.assert_refused(3, "nowhere/human_blood_combat_covid.h5ad: there is no such file", "experiment_twins.sh", "nowhere", "out")

    def test_demo(self):
        self.assert_refused(3, "--data nowhere.h5ad: there is no such file", "demo.sh", "--data", "nowhere.h5ad")
        self.assert_refused(3, f"--data {SCRIPTS}: there is no such file", "demo.sh", "--data", str(SCRIPTS))
        self.assert_refused(2, "--data needs at least one file", "demo.sh", "--data", "--steps", "3")
        self.assert_refused(2, "--steps: expected a whole number from 1, got many", "demo.sh", "--steps", "many")
        self.assert_refused(2, "unknown option cells.h5ad", "demo.sh", "cells.h5ad")


if __name__ == "__main__":
    unittest.main()
