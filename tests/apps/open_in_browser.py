#!/usr/bin/env python3
"""Opens pages that the program wrote in a headless Chromium: open_in_browser.py PROGRAM [--keep FOLDER]

Two small runs and a small stress table are made, their reports laid out for a screen (1,200 pixels) and a phone (390), and
for each page it is checked that every figure is drawn and has a size, that nothing is wider than the window, and that no
text of a figure is cut off at its border; what is folded away is opened first. Exit code 77, saying so, without a Chromium.
--keep also takes pictures there."""
import argparse
import html
import json
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
WIDTHS = (1200, 390)
MEASURE = """
<iframe id="page" style="width:%dpx;height:4000px;border:0" srcdoc="%s"></iframe>
<pre id="result"></pre>
<script>
const frame = document.getElementById('page');
frame.onload = () => {
  for (const details of frame.contentDocument.querySelectorAll('details')) details.open = true;
  const page = frame.contentDocument, found = {width: page.documentElement.scrollWidth, figures: [], cut: []};
  for (const svg of page.querySelectorAll('figure svg')) {
    const box = svg.getBoundingClientRect();
    found.figures.push([svg.closest('figure').id, box.width, box.height, svg.querySelectorAll('path,rect,line').length]);
    for (const text of svg.querySelectorAll('text')) {
      const words = text.getBoundingClientRect();
      if (words.right > box.right + 1 || words.left < box.left - 1 || words.bottom > box.bottom + 1 || words.top < box.top - 1)
        found.cut.push(svg.closest('figure').id + ': ' + text.textContent);
    }
  }
  document.getElementById('result').textContent = JSON.stringify(found);
};
</script>
"""


def run(*words, expected=(0,)):
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, check=False)
    if done.returncode not in expected:
        sys.exit(f"{' '.join(map(str, words))}: exit code {done.returncode}: {done.stderr[-800:]}")
    return done.stdout


def make_pages(program, folder):
    cells = folder / "cells.h5ad"
    run(program, "synthesize", "--out", cells, "--cells", 60, "--genes", 50, "--median-genes", 20, "--programs", 4)
    config = folder / "config.yaml"
    config.write_text(
        f"data: {{files: {cells}, heldout_fraction: 0.2, min_genes: 5}}\ntokenizer: {{max_tokens: 16}}\n"
        "model: {num_layers: 2, width: 16, num_heads: 2, feed_forward_width: 32}\n"
        "optim: {learning_rate: 0.01, warmup_steps: 1}\n"
        "train: {steps: 30, global_batch_cells: 8, device: cpu, num_threads: 1}\n"
        "heldout: {every_steps: 10}\nmonitor: {every_steps: 2}\n")
    for attention in ("sigmoid", "softmax"):
        run(program, "train", "--config", config, "--set", f"run.dir={folder / attention}", "--set", f"model.attention={attention}")
    one, two = folder / "one.html", folder / "two.html"
    run(program, "report", folder / "sigmoid", "--out", one)
    run(program, "report", folder / "sigmoid", folder / "softmax", "--out", two)
    table = folder / "table.yaml"
    table.write_text(
        "title: Table\nbase: config.yaml\naxes: {optim.clip_norm: [0, 1], model.attention: [sigmoid, softmax], "
        "optim.learning_rate: [1e-3, 1e-2, 1e30]}\n")
    run(program, "stress", "--config", table, "--out", folder / "stress")
    return [one, two, folder / "stress" / "report.html"]


def measure(browser, page, width, folder):
    wrapper = folder / "wrapper.html"
    wrapper.write_text(MEASURE % (width, html.escape(page.read_text(), quote=True)))
    dom = run(browser, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'profile'}",
              "--virtual-time-budget=4000", "--window-size=1400,4200", "--dump-dom", wrapper.as_uri())
    result = re.search(r'<pre id="result">(.*?)</pre>', dom, re.S)
    if not result or not result[1]:
        sys.exit(f"{page.name}: the browser did not lay the page out")
    return json.loads(html.unescape(result[1]))


def check(page, width, found):
    problems = []
    if found["width"] > width:
        problems.append(f"is {found['width']} pixels wide")
    if len(found["figures"]) < 8:
        problems.append(f"has only {len(found['figures'])} figures")
    for name, figure_width, height, shapes in found["figures"]:
        if figure_width < 250 or height < 40 or shapes < 1:
            problems.append(f"figure {name} is {figure_width:.0f} x {height:.0f} with {shapes} shapes")
    problems += [f"text is cut: {text}" for text in found["cut"]]
    for problem in problems:
        print(f"{page.name} at {width} pixels {problem}")
    print(f"{page.name} at {width} pixels: {len(found['figures'])} figures, {len(problems)} problems")
    return len(problems)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("program", type=pathlib.Path)
    parser.add_argument("--keep", type=pathlib.Path)
    arguments = parser.parse_args()
    browser = next((path for path in map(shutil.which, BROWSERS) if path), None)
    if browser is None:
        print(f"SKIPPED: none of {', '.join(BROWSERS)} is installed (Debian: apt install chromium)")
        return 77
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        pages = make_pages(arguments.program, folder)
        num_problems = 0
        for page in pages:
            for width in WIDTHS:
                num_problems += check(page, width, measure(browser, page, width, folder))
            if arguments.keep:
                arguments.keep.mkdir(parents=True, exist_ok=True)
                run(browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--user-data-dir={folder / 'profile'}",
                    "--window-size=1200,3400", f"--screenshot={arguments.keep / page.parent.name}-{page.stem}.png", page.as_uri())
        return 1 if num_problems else 0


if __name__ == "__main__":
    sys.exit(main())
