#!/usr/bin/env python3
"""Checks the structure of the sources: check_layers.py [ROOT]. Exit code 1, one line each, when
  - an #include points up the order of the folders, or a CMake target links up (MAY_USE below is the architecture:
    change it there or nowhere)
  - a third-party header leaves the folder that hides it (FENCES)
  - a folder uses another one's headers without linking it, directly or through a PUBLIC link
  - a source file is in no CMakeLists.txt, so that nothing compiles it
Files above 400 lines are named as warnings. Only the text is read: no compiler, no build folder."""
import pathlib
import re
import sys

# Folder -> folders whose headers it may include and whose targets it may link, besides its own. data, model and dist
# never see each other; the word they share, the packed micro-batch, is in core.
MAY_USE = {
    "kernels": set(),
    "lib/core": set(),
    "lib/config": {"lib/core"},
    "lib/data": {"lib/core", "lib/config"},
    "lib/ops": {"lib/core", "kernels"},
    "lib/model": {"lib/core", "lib/config", "lib/ops"},
    "lib/dist": {"lib/core", "lib/config"},
    "lib/optim": {"lib/core", "lib/config", "lib/ops"},
    "lib/checkpoint": {"lib/core", "lib/config"},
}
MAY_USE["lib/report"] = {"lib/core", "lib/config"}
MAY_USE["lib/eval"] = set(MAY_USE)
MAY_USE["lib/train"] = set(MAY_USE)
MAY_USE["lib/finetune"] = set(MAY_USE)
MAY_USE["lib/stress"] = set(MAY_USE)
MAY_USE["lib/bench"] = set(MAY_USE)
MAY_USE["apps"] = set(MAY_USE)

# Header prefix -> where it may be included: folders, or single files.
TORCH = {"lib/ops", "lib/model", "lib/dist", "lib/optim", "lib/checkpoint", "lib/eval", "lib/train", "lib/finetune", "lib/stress", "lib/bench", "apps"}
FENCES = {
    "torch/csrc/distributed/": {"lib/dist"},
    "torch/": TORCH,
    "ATen/": TORCH,
    "c10/": TORCH,
    "nccl.h": {"lib/dist"},
    "openssl/": {"lib/core"},
    "hdf5.h": {"lib/data"},
    "libdeflate.h": {"lib/data"},
    "yaml-cpp/": {"lib/config"},
    "CLI/": {"apps"},
    "spdlog/": {"lib/core/log.cpp"},
}

SOURCES = {".h", ".cpp", ".cu", ".cuh"}
COUNTED = SOURCES | {".py", ".sh", ".cmake"}
LONGEST_FILE_LINES = 400
INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]')


class Target:
    """One CMake target of the project: its folder, its sources (from the root), and what it links."""

    def __init__(self, folder, arguments):
        self.folder = folder
        self.sources = {path_from_root(folder, word) for word in arguments if pathlib.PurePath(word).suffix in SOURCES}
        self.public, self.private = links_of(arguments)


def path_from_root(folder, source):
    prefix = "${PROJECT_SOURCE_DIR}/"
    return source[len(prefix):] if source.startswith(prefix) else f"{folder}/{source}"


def layer_of(path):
    """The folder of MAY_USE that holds this path, or None (tests, scripts, the standard library)."""
    return next((folder for folder in sorted(MAY_USE, key=len, reverse=True) if path.startswith(folder + "/")), None)


def files_below(root, folder, suffixes):
    for path in sorted((root / folder).rglob("*")):
        if path.suffix in suffixes and path.is_file():
            yield path.relative_to(root).as_posix()


def includes_of(path):
    """(line number, header, whether in quotes) of each #include."""
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        match = INCLUDE.match(line)
        if match:
            yield number, match[2], match[1] == '"'


def links_of(arguments):
    """Words after PUBLIC or INTERFACE, and words after PRIVATE or LIBRARIES."""
    public, private, current = set(), set(), None
    for word in arguments:
        if word in ("PUBLIC", "INTERFACE"):
            current = public
        elif word in ("PRIVATE", "LIBRARIES"):
            current = private
        elif word.isupper():
            current = None
        elif current is not None:
            current.add(word)
    return public, private


def read_targets(root):
    """Name -> Target, from the text of every CMakeLists.txt."""
    targets = {}
    for folder in ("kernels", "lib", "apps", "tests"):
        for path in sorted((root / folder).rglob("CMakeLists.txt")):
            here = path.parent.relative_to(root).as_posix()
            text = re.sub(r"#[^\n]*", "", path.read_text(encoding="utf-8"))
            variables = {name: value.split() for name, value in re.findall(r"\bset\((\w+)\s+([^)]*)\)", text)}
            for name, value in re.findall(r"\blist\(APPEND\s+(\w+)\s+([^)]*)\)", text):
                variables.setdefault(name, []).extend(value.split())
            for command, body in re.findall(r"\b(\w+)\(([^)]*)\)", text):
                words = []
                for word in body.split():
                    variable = re.fullmatch(r"\$\{(\w+)\}", word)
                    words.extend(variables.get(variable[1], []) if variable else [word.strip('"')])
                if not words:
                    continue
                if command in ("scrna_add_library", "scrna_add_test", "add_executable", "add_library"):
                    targets[words[0]] = Target(here, words[1:])
                elif command == "target_link_libraries" and words[0] in targets:
                    public, private = links_of(words[1:])
                    targets[words[0]].public |= public
                    targets[words[0]].private |= private
    return targets


def reachable_folders(target, targets):
    """Folders whose headers a target may use: of its sources, of what it links, and of what those link publicly."""
    folders = {target.folder, *(str(pathlib.PurePosixPath(source).parent) for source in target.sources)}
    waiting, seen = list(target.public | target.private), set()
    while waiting:
        name = waiting.pop()
        if name in seen or name not in targets:
            continue
        seen.add(name)
        folders.add(targets[name].folder)
        waiting.extend(targets[name].public)
    return folders


def check_includes(root):
    for folder in ("kernels", "lib", "apps"):
        for name in files_below(root, folder, SOURCES):
            here = layer_of(name)
            if here is None:
                yield f"{name}: its folder is unknown; add it to MAY_USE in scripts/check_layers.py"
                continue
            for number, header, quoted in includes_of(root / name):
                there = layer_of(header)
                if quoted and there not in (None, here) and there not in MAY_USE[here]:
                    yield f"{name}:{number}: {here} may not include {there} ({header})"
                fence = next((prefix for prefix in FENCES if header.startswith(prefix)), None)
                if fence and here not in FENCES[fence] and name not in FENCES[fence]:
                    yield f"{name}:{number}: {header} belongs in {', '.join(sorted(FENCES[fence]))} only"


def check_links(root, targets):
    for name, target in sorted(targets.items()):
        here = layer_of(target.folder + "/")
        linked = {targets[other].folder for other in target.public | target.private if other in targets}
        for there in sorted(linked):
            if here and there != target.folder and layer_of(there + "/") not in MAY_USE[here] | {here}:
                yield f"{target.folder}/CMakeLists.txt: {name} may not link {there}"
        reachable = {layer_of(folder + "/") for folder in reachable_folders(target, targets)}
        for source in sorted(target.sources):
            path = root / source
            if not path.is_file():
                continue  # generated, or CMake will say so
            for number, header, quoted in includes_of(path):
                there = layer_of(header)
                if quoted and there not in (None, here) and there not in reachable:
                    yield f"{source}:{number}: includes {header}, but {name} does not link {there}"


def check_sources_are_built(root, targets):
    built = {source for target in targets.values() for source in target.sources}
    for folder in ("kernels", "lib", "apps", "tests"):
        for name in files_below(root, folder, {".cpp", ".cu"}):
            if name not in built:
                yield f"{name}: in no CMakeLists.txt, so nothing compiles it"


def long_files(root):
    for folder in ("kernels", "lib", "apps", "tests", "scripts"):
        for name in files_below(root, folder, COUNTED):
            lines = len((root / name).read_text(encoding="utf-8").splitlines())
            if lines > LONGEST_FILE_LINES:
                yield f"{name}: {lines} lines, more than {LONGEST_FILE_LINES}"


def main():
    root = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else pathlib.Path(__file__).resolve().parent.parent
    targets = read_targets(root)
    violations = [*check_includes(root), *check_links(root, targets), *check_sources_are_built(root, targets)]
    for line in long_files(root):
        print(f"warning: {line}")
    for line in violations:
        print(line)
    print(f"check_layers: {len(targets)} targets, {len(violations)} violations")
    return 1 if violations or not targets else 0


if __name__ == "__main__":
    sys.exit(main())
