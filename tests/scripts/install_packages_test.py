"""scripts/install_packages.sh with stand-ins for dpkg-query, apt-get, sudo and id: what counts as missing, what root
and a user without root get."""
import os
import pathlib
import shutil
import subprocess
import tempfile
import unittest

SCRIPTS = pathlib.Path(__file__).resolve().parents[2] / "scripts"
TABLE = "# comment\nlibhere-dev\t-\ttests\nlibabsent-dev\t-\ttests\nbash-package\tbash\ttests\nno-such-tool\tno-such-tool-here\ttests\n"


class InstallPackages(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="scrna packages "))
        self.addCleanup(shutil.rmtree, self.folder)
        scripts = self.folder / "clone" / "scripts"
        scripts.mkdir(parents=True)
        for name in ("common.sh", "install_packages.sh"):
            shutil.copy(SCRIPTS / name, scripts)
        (scripts / "debian_packages.tsv").write_text(TABLE, encoding="utf-8")
        self.script = scripts / "install_packages.sh"
        self.calls = self.folder / "calls"
        self.calls.touch()
        self.stand_in("dpkg-query", 'case "$*" in *libhere-dev) echo installed ;; *) exit 1 ;; esac')
        self.stand_in_for_apt_get(knows_packages=True)
        self.stand_in("id", "echo 0")
        self.stand_in("sudo", "exit 1")

    def stand_in(self, name, text):
        path = self.folder / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/bash\n{text}\n", encoding="utf-8")
        path.chmod(0o755)

    def stand_in_for_apt_get(self, knows_packages):
        self.stand_in("apt-get", f"""case "$*" in
          *--simulate*) {"exit 0" if knows_packages else "exit 100"} ;;
          *--assume-no*) echo "Need to get 3 MB of archives." ;;
          *) echo "apt-get $*" >> "{self.calls}" ;;
        esac""")

    def install(self, *arguments):
        environment = {**os.environ, "PATH": f"{self.folder}/bin:{os.environ['PATH']}"}
        done = subprocess.run([self.script, *arguments], text=True, capture_output=True, env=environment,
                              stdin=subprocess.DEVNULL, check=False)
        return done, self.calls.read_text(encoding="utf-8").splitlines()

    def test_the_list_names_what_has_neither_package_nor_command(self):
        done, calls = self.install("--list")
        self.assertEqual((done.returncode, done.stdout), (0, "libabsent-dev\nno-such-tool\n"))
        self.assertEqual(calls, [])

    def test_root_installs_them_after_saying_which_and_how_large(self):
        done, calls = self.install()
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("libabsent-dev no-such-tool", done.stderr)
        self.assertIn("Need to get 3 MB", done.stderr)
        self.assertEqual(calls, ["apt-get install --yes --no-install-recommends libabsent-dev no-such-tool -qq"])

    def test_unknown_packages_lead_to_an_update_first(self):
        self.stand_in_for_apt_get(knows_packages=False)
        _, calls = self.install()
        self.assertEqual(calls[0], "apt-get update -qq")
        self.assertEqual(len(calls), 2)

    def test_a_user_without_root_gets_the_command_and_nothing_is_installed(self):
        self.stand_in("id", "echo 1000")
        done, calls = self.install()
        self.assertEqual(done.returncode, 2)
        self.assertIn("sudo apt-get update && sudo apt-get install --yes --no-install-recommends libabsent-dev no-such-tool", done.stderr)
        self.assertEqual(calls, [])

    def test_a_sudo_that_asks_nothing_is_used(self):
        self.stand_in("id", "echo 1000")
        self.stand_in("sudo", 'shift; exec "$@"')
        done, calls = self.install()
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(len(calls), 1)

    def test_nothing_is_said_or_done_when_all_is_there(self):
        self.stand_in("dpkg-query", "echo installed")
        done, calls = self.install()
        self.assertEqual((done.returncode, done.stdout, done.stderr, calls), (0, "", "", []))


if __name__ == "__main__":
    unittest.main()
