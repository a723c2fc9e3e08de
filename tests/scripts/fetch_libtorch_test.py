"""scripts/fetch_libtorch.sh with small wheels of our own in place of the package index: what it unpacks, that it
downloads nothing twice, and that interruptions and wrong files do no harm."""
import hashlib
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest
import zipfile

SCRIPTS = pathlib.Path(__file__).resolve().parents[2] / "scripts"


class FetchLibtorch(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="scrna fetch "))  # with a blank, on purpose
        self.addCleanup(shutil.rmtree, self.folder)
        (self.folder / "clone" / "scripts").mkdir(parents=True)
        for name in ("common.sh", "fetch_libtorch.sh"):
            shutil.copy(SCRIPTS / name, self.folder / "clone" / "scripts")
        self.index = self.folder / "index"
        self.index.mkdir()
        self.cache = self.folder / "cache" / "scrna-train"
        self.libtorch = self.cache / "libtorch-2.11.0"
        self.rows = []
        self.add_wheel("cpu", "torch", "2.11.0", "cp312-cp312-manylinux_2_28_x86_64",
                       {"torch/lib/libtorch_cpu.so": "cpu", "torch/include/ATen/ATen.h": "header", "torch/nn.py": "python"},
                       unpacked="torch/lib/* torch/include/* torch-2.11.0.dist-info/*")
        self.add_wheel("cpu,nvcc", "nvidia-cuda-runtime", "13.0.96", "py3-none-manylinux2014_x86_64",
                       {"nvidia/cu13/lib/libcudart.so.13": "runtime", "nvidia/__init__.py": ""})
        self.add_wheel("cuda", "nvidia-cufft", "12.0", "py3-none-manylinux_2_27_x86_64",
                       {"nvidia/cu13/lib/libcufft.so.12": "from the wheel"}, libraries="libcufft.so.12")
        self.add_wheel("cuda", "nvidia-nccl-cu13", "2.28.9", "py3-none-manylinux_2_18_x86_64",
                       {"nvidia/nccl/lib/libnccl.so.2": "from the wheel"}, libraries="libnccl.so.2")
        self.add_wheel("nvcc", "nvidia-cuda-nvcc", "13.0.88", "py3-none-manylinux2010_x86_64.manylinux_2_12_x86_64",
                       {"nvidia/cu13/bin/nvcc": "compiler"})

    def add_wheel(self, group, name, version, tags, files, unpacked="*", libraries="-"):
        stem = f"{name.replace('-', '_')}-{version}"
        path = self.index / f"{stem}-{tags}.whl"
        with zipfile.ZipFile(path, "w") as wheel:
            for member, text in files.items():
                wheel.writestr(member, text)
            wheel.writestr(f"{stem}.dist-info/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
            wheel.writestr(f"{stem}.dist-info/WHEEL", f"Wheel-Version: 1.0\nRoot-Is-Purelib: false\nTag: {tags}\n")
            wheel.writestr(f"{stem}.dist-info/RECORD", "")
        data = path.read_bytes()
        self.rows.append([group, name, version, str(len(data)), hashlib.sha256(data).hexdigest(), unpacked, libraries])

    def fetch(self, *arguments):
        table = self.folder / "clone" / "scripts" / "libtorch_wheels.tsv"
        table.write_text("# comment\n" + "".join("\t".join(row) + "\n" for row in self.rows), encoding="utf-8")
        environment = {**os.environ, "XDG_CACHE_HOME": str(self.folder / "cache"), "PIP_NO_INDEX": "1",
                       "PIP_FIND_LINKS": self.index.as_uri()}
        return subprocess.run([self.folder / "clone" / "scripts" / "fetch_libtorch.sh", *arguments], text=True,
                              capture_output=True, env=environment, stdin=subprocess.DEVNULL, check=False)

    def assert_fetched(self, *arguments):
        done = self.fetch(*arguments)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(done.stdout, f"{self.libtorch}\n")
        return done.stderr

    def text(self, name):
        return (self.libtorch / name).read_text(encoding="utf-8")

    def test_cpu_is_torch_and_the_runtime_and_no_python(self):
        said = self.assert_fetched("cpu")
        self.assertIn("torch 2.11.0", said)
        self.assertIn(str(self.libtorch), said)
        self.assertEqual(self.text("torch/lib/libtorch_cpu.so"), "cpu")
        self.assertEqual(os.readlink(self.libtorch / "nvidia/cu13/lib/libcudart.so"), "libcudart.so.13")
        self.assertEqual(list(self.libtorch.rglob("*.py")), [])
        self.assertFalse((self.libtorch / "nvidia/cu13/lib/libcufft.so.12").exists())
        self.assertEqual(sorted(path.name for path in self.cache.iterdir() if path.name != "pip"), ["libtorch-2.11.0", "lock"])

    def test_a_second_time_nothing_is_downloaded(self):
        self.assert_fetched("cpu")
        shutil.rmtree(self.index)
        self.assertEqual(self.assert_fetched("cpu"), "")

    def test_cuda_is_added_to_what_is_there(self):
        self.assert_fetched("cpu")
        (self.index / "torch-2.11.0-cp312-cp312-manylinux_2_28_x86_64.whl").unlink()
        said = self.assert_fetched("cpu", "cuda", "nvcc")
        self.assertNotIn("torch 2.11.0", said)
        self.assertEqual(self.text("nvidia/cu13/lib/libcufft.so.12"), "from the wheel")
        self.assertTrue(os.access(self.libtorch / "nvidia/cu13/bin/nvcc", os.X_OK))
        self.assertEqual(os.readlink(self.libtorch / "nvidia/cu13/lib64"), "lib")

    def toolkit(self, nvcc_version):
        toolkit = self.folder / "cuda-13.0"
        for name, text in {"lib64/libcufft.so.12": "from the toolkit", "lib64/libnccl.so.2": "from the toolkit",
                           "include/nccl.h": "#define NCCL_VERSION_CODE 22700\n",
                           "bin/nvcc": f"#!/bin/sh\necho 'Cuda compilation tools, release 13.0, V{nvcc_version}'\n"}.items():
            (toolkit / name).parent.mkdir(parents=True, exist_ok=True)
            (toolkit / name).write_text(text, encoding="utf-8")
        (toolkit / "bin/nvcc").chmod(0o755)
        return toolkit

    def test_libraries_of_an_installed_toolkit_are_linked_not_fetched(self):
        toolkit = self.toolkit("13.0.88")
        said = self.assert_fetched("cpu", "cuda", "--toolkit", str(toolkit))
        self.assertNotIn("nvidia-cufft", said)
        self.assertEqual(self.text("nvidia/cu13/lib/libcufft.so.12"), "from the toolkit")
        self.assertIn("nvidia-nccl-cu13", said, "an NCCL older than LibTorch's must not be used")
        # The toolkit goes away: the next set-up fetches what it had.
        shutil.rmtree(toolkit)
        self.assertIn("nvidia-cufft", self.assert_fetched("cpu", "cuda"))
        self.assertEqual(self.text("nvidia/cu13/lib/libcufft.so.12"), "from the wheel")

    def test_libraries_of_an_older_toolkit_are_passed_over(self):
        said = self.assert_fetched("cpu", "cuda", "--toolkit", str(self.toolkit("13.0.48")))
        self.assertIn("nvidia-cufft", said)
        self.assertEqual(self.text("nvidia/cu13/lib/libcufft.so.12"), "from the wheel")

    def test_a_file_that_differs_from_its_sum_is_not_used(self):
        self.rows[0][4] = "0" * 64
        done = self.fetch("cpu")
        self.assertEqual(done.returncode, 2)
        self.assertIn("differs from the SHA-256 sum", done.stderr)
        self.assertFalse((self.libtorch / "torch").exists())
        self.assertFalse((self.libtorch / "complete").exists())
        self.assertEqual(list((self.cache / "downloads").iterdir()), [])

    def test_after_an_interrupted_download_it_starts_again(self):
        (self.cache / "downloads").mkdir(parents=True)
        (self.cache / "downloads/torch-2.11.0-cp312-cp312-manylinux_2_28_x86_64.whl").write_bytes(b"half a wheel")
        self.assert_fetched("cpu")
        self.assertEqual(self.text("torch/lib/libtorch_cpu.so"), "cpu")

    def test_after_an_interrupted_unpacking_it_starts_again(self):
        (self.cache / "unpacking/torch").mkdir(parents=True)
        (self.cache / "unpacking/stray").write_text("of the interrupted run", encoding="utf-8")
        (self.libtorch / "torch/lib").mkdir(parents=True)
        (self.libtorch / "torch/lib/libtorch_cpu.so").write_text("half", encoding="utf-8")
        self.assert_fetched("cpu")
        self.assertEqual(self.text("torch/lib/libtorch_cpu.so"), "cpu")
        self.assertFalse((self.libtorch / "stray").exists())

    def test_without_the_network_it_says_so_and_keeps_what_it_has(self):
        (self.index / "nvidia_cuda_runtime-13.0.96-py3-none-manylinux2014_x86_64.whl").unlink()
        done = self.fetch("cpu")
        self.assertEqual(done.returncode, 2)
        self.assertIn("could not download nvidia-cuda-runtime 13.0.96", done.stderr)
        self.assertTrue(self.text("complete").startswith("torch 2.11.0 "))

    def test_a_wrong_argument_is_named(self):
        done = self.fetch("gpu")
        self.assertEqual(done.returncode, 2)
        self.assertIn("unknown argument gpu", done.stderr)


if __name__ == "__main__":
    if shutil.which("unzip") is None:
        print("skipped: unzip is not installed")
        sys.exit(77)
    unittest.main()
