"""scripts/cmake/machine.cmake: whether device code is built, with which nvcc and which LibTorch. Stand-ins come first
in PATH, so that the outcome is the same on every machine."""
import os
import pathlib
import shutil
import subprocess
import tempfile
import unittest

SCRIPT = pathlib.Path(__file__).resolve().parents[2] / "scripts" / "cmake" / "machine.cmake"


class Machine(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="scrna machine "))
        self.addCleanup(shutil.rmtree, self.folder)

    def executable(self, name, prints=""):
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!/bin/sh\necho '{prints}'\n", encoding="utf-8")
        path.chmod(0o755)
        return str(path)

    def libtorch(self, *libraries):
        for name in ("include/ATen/ATen.h", "share/cmake/Torch/TorchConfig.cmake", *(f"lib/{library}" for library in libraries)):
            path = self.folder / "site-packages/torch" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        return (self.folder / "site-packages/torch").resolve()

    def facts(self, cuda, **environment):
        environment = {**os.environ, "PATH": f"{self.folder}/bin:{os.environ['PATH']}", "CMAKE_PREFIX_PATH": "", "CUDACXX": "",
                       "XDG_CACHE_HOME": str(self.folder / "cache"), **environment}
        done = subprocess.run(["cmake", f"-DSCRNA_CUDA={cuda}", "-P", SCRIPT], text=True, capture_output=True,
                              env=environment, check=True)
        return dict(line.removeprefix("-- SCRNA_").split("=", 1) for line in done.stdout.splitlines())

    def test_on_and_off_are_obeyed(self):
        self.executable("bin/nvidia-smi")
        self.assertEqual(self.facts("ON")["CUDA_WANTED"], "ON")
        self.assertEqual(self.facts("OFF")["CUDA_WANTED"], "OFF")

    def test_a_driver_is_reason_enough(self):
        self.executable("bin/nvidia-smi")
        facts = self.facts("AUTO")
        self.assertEqual(facts["CUDA_WANTED"], "ON")
        self.assertIn("NVIDIA driver", facts["CUDA_REASON"])

    def test_an_nvcc_13_is_used(self):
        nvcc = self.executable("bin/nvcc", "Cuda compilation tools, release 13.0, V13.0.88")
        facts = self.facts("AUTO")
        self.assertEqual((facts["CUDA_WANTED"], facts["NVCC"]), ("ON", nvcc))

    def test_the_nvcc_that_the_user_names_comes_first(self):
        self.executable("bin/nvcc", "Cuda compilation tools, release 13.0, V13.0.88")
        other = self.executable("other/nvcc", "Cuda compilation tools, release 13.1, V13.1.2")
        self.assertEqual(self.facts("AUTO", CUDACXX=other)["NVCC"], other)

    def test_an_older_nvcc_is_not(self):
        nvcc = self.executable("bin/nvcc", "Cuda compilation tools, release 12.4, V12.4.131")
        self.assertNotEqual(self.facts("AUTO")["NVCC"], nvcc)

    def test_an_nvcc_that_was_fetched_is_used_but_is_no_reason(self):
        fetched = self.executable("cache/scrna-train/libtorch-2.11.0/nvidia/cu13/bin/nvcc", "release 13.0, V13.0.88")
        facts = self.facts("AUTO", CUDACXX=fetched)
        self.assertEqual(facts["NVCC"], fetched)
        self.assertNotIn("has an nvcc", facts["CUDA_REASON"])

    def test_libtorch_is_found_by_each_spelling_of_its_place(self):
        torch = self.libtorch("libtorch_cuda.so")
        for prefix in (torch, torch.parent, torch / "share/cmake"):
            self.assertEqual(self.facts("AUTO", CMAKE_PREFIX_PATH=f"/nowhere:{prefix}")["NAMED_LIBTORCH"], str(torch))
        self.assertEqual(self.facts("AUTO", CMAKE_PREFIX_PATH="/nowhere")["NAMED_LIBTORCH"], "")

    def test_a_libtorch_for_cpu_gives_a_program_for_cpu(self):
        self.executable("bin/nvidia-smi")
        facts = self.facts("AUTO", CMAKE_PREFIX_PATH=str(self.libtorch("libtorch_cpu.so")))
        self.assertEqual(facts["CUDA_WANTED"], "OFF")
        self.assertIn("is built for CPU only", facts["CUDA_REASON"])


if __name__ == "__main__":
    unittest.main()
