"""Loads a model that `scrna-train export` wrote into plain PyTorch, and writes such files.

    model = scrna_torch.load("model.safetensors")
    tokens = model.tokenize({"ENSG00000141510": 3, ...})         # one cell: gene id -> raw count
    vector = model.embed(tokens)                                  # [width], as `scrna-train embed` gives it
    scrna_torch.save(model, "changed.safetensors")                # scrna-train reads it back

Needs torch, numpy and safetensors. One cell at a time, without padding: a reference to read and to compare with, not
meant for speed; `scrna-train embed` is. An option of the encoder that this file does not know is refused, never passed
over.

  scrna_torch.py embed MODEL.safetensors CELLS.h5ad OUT.npy [--layer N] [--pooling mean|max|first] [--min-genes N]
  scrna_torch.py copy MODEL.safetensors OUT.safetensors
"""
import argparse
import hashlib
import json
import math

import numpy
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

SPECIAL = 4  # <pad> <mask> <cls> <unk>, then the genes
CLS = 2
# Settings of the encoder that change what it computes, and the values known here. The others change how it is computed.
KNOWN = {"attention": {"sigmoid", "softmax"}, "qk_norm": {"none", "layer_norm", "rms_norm"},
         "attention_bias": {"negative_log_length", "zero"}}
HARMLESS = {"num_layers", "width", "num_heads", "feed_forward_width", "dropout", "layer_norm_epsilon", "initializer_range",
            "attention_kernel", "attention_precision", "attention_deterministic", "residual_precision", "gelu_precision", "recompute"}


class Block(nn.Module):
    """h += attention(LN(h)); h += feed_forward(LN(h)), over the tokens of one cell [n, width]."""

    def __init__(self, config):
        super().__init__()
        width, inner, eps = config["width"], config["feed_forward_width"], config["layer_norm_epsilon"]
        self.config, self.heads = config, config["num_heads"]
        self.attention = nn.ModuleDict({"norm": nn.LayerNorm(width, eps=eps), "qkv": nn.Linear(width, 3 * width),
                                        "output": nn.Linear(width, width)})
        kind = config.get("qk_norm", "none")
        if kind != "none":
            norm = nn.LayerNorm if kind == "layer_norm" else nn.RMSNorm
            self.attention["query_norm"] = norm(width // self.heads, eps=eps)
            self.attention["key_norm"] = norm(width // self.heads, eps=eps)
        self.feed_forward = nn.ModuleDict({"norm": nn.LayerNorm(width, eps=eps), "in": nn.Linear(width, inner),
                                           "out": nn.Linear(inner, width)})

    def attend(self, x):
        n, width = x.shape
        qkv = self.attention["qkv"](x).view(n, 3, self.heads, width // self.heads)
        q, k, v = (qkv[:, i].transpose(0, 1) for i in range(3))  # [heads, n, head width]
        if "query_norm" in self.attention:
            q, k = self.attention["query_norm"](q), self.attention["key_norm"](k)
        scores = q @ k.transpose(1, 2) / math.sqrt(q.shape[-1])
        if self.config["attention"] == "softmax":
            weights = scores.softmax(dim=-1)
        else:
            bias = 0.0 if self.config.get("attention_bias") == "zero" else -math.log(n)
            weights = torch.sigmoid(scores + bias)
        return self.attention["output"]((weights @ v).transpose(0, 1).reshape(n, width))

    def forward(self, h):
        h = h + self.attend(self.attention["norm"](h))
        return h + self.feed_forward["out"](F.gelu(self.feed_forward["in"](self.feed_forward["norm"](h))))


class Model(nn.Module):
    def __init__(self, config, metadata):
        super().__init__()
        self.metadata, self.tokenizer = dict(metadata), config["tokenizer"]
        encoder = config["model"]
        for name, value in encoder.items():
            if name not in HARMLESS and value not in KNOWN.get(name, ()):
                raise ValueError(f"model.{name} = {value}: this version of scrna_torch.py does not know it")
        rows = [line.split("\t") for line in metadata["vocabulary"].splitlines() if line and not line.startswith("#")]
        header = rows[0]
        rows = [row for row in rows[1:] if int(row[header.index("token")]) >= SPECIAL]
        self.genes = [row[header.index("gene")] for row in rows]
        self.medians = numpy.array([row[header.index("median")] for row in rows], dtype=numpy.float32)
        self.token_of = {gene: SPECIAL + i for i, gene in enumerate(self.genes)}
        size, width = SPECIAL + len(self.genes), encoder["width"]
        self.embedding = nn.ModuleDict({"gene": nn.Embedding(size, width),
                                        "rank": nn.Embedding(self.tokenizer["max_tokens"], width)})
        self.layers = nn.ModuleList(Block(encoder) for _ in range(encoder["num_layers"]))
        self.head = nn.ModuleDict({"norm": nn.LayerNorm(width, eps=encoder["layer_norm_epsilon"]),
                                   "output": nn.Linear(width, size)})

    def tokenize(self, counts):
        """Gene id -> raw count of one cell, to token ids: largest count / median first, ties by token."""
        known = sorted((self.token_of[gene], count) for gene, count in counts.items() if gene in self.token_of and count > 0)
        tokens = numpy.array([token for token, _ in known], dtype=numpy.int64)
        values = numpy.array([count for _, count in known], dtype=numpy.float32)
        order = numpy.argsort(-(values / self.medians[tokens - SPECIAL]), kind="stable")
        cls = [CLS] if self.tokenizer["add_cls"] else []
        return numpy.array(cls + tokens[order].tolist(), dtype=numpy.int64)[:self.tokenizer["max_tokens"]]

    def hidden_states(self, tokens, layer=-1):
        """[n, width] of one cell: the last layer after the final LayerNorm, an earlier one as it is."""
        layers = len(self.layers)
        layer = layers + 1 + layer if layer < 0 else layer
        tokens = torch.as_tensor(tokens)
        h = self.embedding["gene"](tokens) + self.embedding["rank"](torch.arange(len(tokens)))
        for block in self.layers[:layer]:
            h = block(h)
        return self.head["norm"](h) if layer == layers else h

    def logits(self, tokens):
        """[n, vocabulary] of one cell, which may hold <mask> (token 1)."""
        return self.head["output"](self.hidden_states(tokens))

    @torch.no_grad()
    def embed(self, tokens, layer=-1, pooling="mean"):
        """[width]: over the tokens of the cell's genes; "first": the first token."""
        h = self.hidden_states(tokens, layer)
        if pooling == "first":
            return h[0]
        genes = h[1:] if self.tokenizer["add_cls"] else h
        return genes.mean(0) if pooling == "mean" else genes.amax(0)


def name_in_file(name):
    """layers.3.attention.qkv.weight -> layer_03.attention.qkv.weight"""
    parts = name.split(".")
    return ".".join([f"layer_{int(parts[1]):02d}"] + parts[2:]) if parts[0] == "layers" else name


def load(path):
    """The model on the CPU in fp32. Raises when the file is not such a model or holds a tensor too many or too few."""
    with safe_open(path, "pt") as file:
        metadata = file.metadata() or {}
        if metadata.get("format") != "scrna-train model" or metadata.get("format_version") != "1":
            raise ValueError(f"{path}: not a model that scrna-train export wrote, or of another version")
        model = Model(json.loads(metadata["config_json"]), metadata)
        state, left = model.state_dict(), set(file.keys())
        for name, tensor in state.items():
            tensor.copy_(file.get_tensor(name_in_file(name)))
            left.discard(name_in_file(name))
    if left:
        raise ValueError(f"{path}: tensors that this version of scrna_torch.py does not know: {sorted(left)}")
    return model.eval()


def save(model, path):
    """Writes the model as scrna-train reads it."""
    tensors = {name_in_file(name): tensor.detach().float().contiguous() for name, tensor in model.state_dict().items()}
    lines = [f"{name} Float [{','.join(map(str, tensor.shape))}] {hashlib.sha256(tensor.numpy().tobytes()).hexdigest()}\n"
             for name, tensor in sorted(tensors.items())]
    metadata = dict(model.metadata, weights_sha256=hashlib.sha256("".join(lines).encode()).hexdigest())
    save_file(tensors, path, metadata)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["embed", "copy"])
    parser.add_argument("model")
    parser.add_argument("files", nargs="+")
    parser.add_argument("--layer", type=int, default=-1)
    parser.add_argument("--pooling", default="mean", choices=["mean", "max", "first"])
    parser.add_argument("--min-genes", type=int, default=1, help="cells with fewer genes of the vocabulary get NaN")
    arguments = parser.parse_args()
    model = load(arguments.model)
    if arguments.what == "copy":
        save(model, arguments.files[0])
        return
    import anndata
    data = anndata.read_h5ad(arguments.files[0])
    rows = []
    for cell in range(data.n_obs):
        counts = numpy.asarray(data.X[cell].todense() if hasattr(data.X[cell], "todense") else data.X[cell]).ravel()
        cell_counts = {gene: counts[i] for i, gene in enumerate(data.var_names) if counts[i] > 0}
        known = sum(gene in model.token_of for gene in cell_counts)
        if known < arguments.min_genes:
            rows.append(torch.full((model.head["norm"].weight.shape[0],), float("nan")))
        else:
            rows.append(model.embed(model.tokenize(cell_counts), arguments.layer, arguments.pooling))
    numpy.save(arguments.files[1], torch.stack(rows).numpy())


if __name__ == "__main__":
    main()
