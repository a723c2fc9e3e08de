"""A small model trained by the program, for the comparisons of what it writes afterwards."""
import subprocess

CONFIG = """
data: {{files: {cells}, heldout_fraction: 0, min_genes: 5}}
tokenizer: {{max_tokens: 64}}
model: {{num_layers: 1, width: {width}, num_heads: 2, feed_forward_width: {inner}}}
optim: {{warmup_steps: 1}}
train: {{steps: 2, global_batch_cells: 16, device: cpu, num_threads: 1}}
heldout: {{every_steps: 0}}
"""


def run(*words):
    """What the command prints; it must succeed."""
    result = subprocess.run([str(word) for word in words], capture_output=True, text=True)
    assert result.returncode == 0, f"{' '.join(map(str, words))}: {result.stderr}"
    return result.stdout


def write_config(path, cells, width):
    path.write_text(CONFIG.format(cells=cells, width=width, inner=2 * width))
