"""experiment_twins.sh with a stand-in for the program: which learning rates it takes, what it trains with them, and when
it stops. The stand-in writes the held-out losses that the test gives it."""
import json
import os
import pathlib
import stat
import subprocess
import tempfile
import unittest

SCRIPT = pathlib.Path(__file__).resolve().parents[2] / "scripts" / "experiment_twins.sh"
FILES = ("human_blood_combat_covid", "human_luad_patients", "human_malt_tumour", "human_pbmc_donorA_frozen",
         "human_pbmc_7batch", "human_pbmc3k", "mouse_oligodendrocytes_marques")
PROGRAM = r'''#!/usr/bin/env python3
import json, os, pathlib, re, sys
words = sys.argv[1:]
with open(os.environ["CALLS"], "a") as calls:
    calls.write(json.dumps(words) + "\n")
if words[0] == "evaluate":
    print("evaluated")
    sys.exit(0)
after = lambda flag: words[words.index(flag) + 1]
out = pathlib.Path(after("--out"))
losses = json.loads(os.environ["LOSSES"])
axis = next((word for word in words if word.startswith("optim.learning_rate=[")), None)
table = pathlib.Path(after("--config")).read_text()
for model in ("sigmoid", "softmax"):
    rates = re.findall(r"[^\[,\]]+", axis.split("=")[1]) if axis else [None]
    for rate in rates:
        for seed in ("1",) if axis else ("1", "2"):
            run = out / (f"{model}-seed{seed}" + (f"-lr{rate}" if rate else ""))
            (run / "checkpoints" / "latest").mkdir(parents=True, exist_ok=True)
            loss = losses[model][rate] if rate else 6.5
            if loss is None:
                (run / "divergence").mkdir()
            (run / "metrics.jsonl").write_text(
                '{"heldout_loss":9.0,"heldout_uniform_loss":9.8,"heldout_gene_frequency_loss":8.8}\n'
                f'{{"heldout_loss":{loss or 9.9},"heldout_uniform_loss":9.8,"heldout_gene_frequency_loss":8.8}}\n')
(out / "vocabulary.tsv").write_text("id\tsymbol\n0\t<pad>\n1\tx\n2\tx\n3\tx\n4\tMBP\n5\tMT-ND1\n")
'''


class Twins(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        (self.folder / "data").mkdir()
        for name in FILES:
            (self.folder / "data" / f"{name}.h5ad").touch()
        self.program = self.folder / "program"
        self.program.write_text(PROGRAM)
        self.program.chmod(self.program.stat().st_mode | stat.S_IXUSR)

    def run_script(self, *arguments, losses=None):
        environment = dict(os.environ, CALLS=str(self.folder / "calls"), LOSSES=json.dumps(losses or {}))
        done = subprocess.run([SCRIPT, "--program", self.program, *arguments, self.folder / "data", self.folder / "out"], text=True,
                              capture_output=True, stdin=subprocess.DEVNULL, check=False, env=environment)
        calls = self.folder / "calls"
        return done, [json.loads(line) for line in calls.read_text().splitlines()] if calls.exists() else []

    def test_each_attention_takes_its_own_best_rate(self):
        losses = {"sigmoid": {"1e-3": 10.5, "2e-3": 9.25}, "softmax": {"1e-3": 5.9, "2e-3": None}}
        done, calls = self.run_script("--rates", "1e-3,2e-3", "--steps", "70", losses=losses)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual((self.folder / "out" / "rates.tsv").read_text(),
                         "1e-3\tsigmoid\t10.5\n1e-3\tsoftmax\t5.9\n2e-3\tsigmoid\t9.25\n2e-3\tsoftmax\tdiverged\n")
        table = (self.folder / "out" / "twins.yaml").read_text()
        self.assertIn("  sigmoid: {model.attention: sigmoid, optim.learning_rate: 2e-3}\n", table)
        self.assertIn("  softmax: {model.attention: softmax, optim.learning_rate: 1e-3}\n", table)
        trials, runs, evaluation = calls
        self.assertEqual(trials[trials.index("--steps") + 1], "70", "as long as the runs")
        self.assertEqual(runs[runs.index("--config") + 1], str(self.folder / "out" / "twins.yaml"))
        self.assertNotIn("--axis", runs)
        self.assertEqual(evaluation[0], "evaluate")
        self.assertIn(f"sigmoid={self.folder}/out/runs/sigmoid-seed1,{self.folder}/out/runs/sigmoid-seed2", evaluation)
        self.assertIn("softmax-seed2             6.5000            8.8000    9.8000", done.stdout)
        self.assertEqual((self.folder / "out" / "mouse_names.tsv").read_text(), "alias\tid\nMbp\tMBP\nmt-Nd1\tMT-ND1\n")

    def test_trials_may_be_shorter(self):
        losses = {model: {"1e-3": 6.0} for model in ("sigmoid", "softmax")}
        done, calls = self.run_script("--rates", "1e-3", "--rate-steps", "9", losses=losses)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(calls[0][calls[0].index("--steps") + 1], "9")
        self.assertNotIn("--steps", calls[1])

    def test_an_attention_that_always_diverges_ends_it(self):
        losses = {"sigmoid": {"1e-3": 6.0}, "softmax": {"1e-3": None}}
        done, calls = self.run_script("--rates", "1e-3", losses=losses)
        self.assertEqual(done.returncode, 4, done.stderr)
        self.assertIn("with softmax attention every learning rate of 1e-3 diverged", done.stderr)
        self.assertEqual(len(calls), 1)

    def test_without_rates_the_table_is_trained_as_it_is(self):
        done, calls = self.run_script()
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertTrue(calls[0][calls[0].index("--config") + 1].endswith("configs/experiments/twins.yaml"))
        self.assertFalse((self.folder / "out" / "twins.yaml").exists())


if __name__ == "__main__":
    unittest.main()
