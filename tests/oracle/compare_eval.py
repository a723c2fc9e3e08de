#!/usr/bin/env python3
"""Compares lib/eval with scikit-learn, scib-metrics, igraph and umap-learn on the same embeddings:
compare_eval.py --eval-dump PROGRAM [--cells N]. Prints a table, one line for each comparison, and exits with 1 when one
fails. Deterministic metrics must agree to 1e-5; Leiden and UMAP in distribution over seeds: the qualities that theirs
reach bound what ours may."""
import argparse
import json
import pathlib
import random
import subprocess
import sys
import tempfile
import warnings

import numpy as np

warnings.filterwarnings("ignore")
TOLERANCE = 1e-5
failures = 0


def report(what, ours, theirs, passed):
    global failures
    failures += not passed
    print(f"{'ok  ' if passed else 'FAIL'} {what:58s} ours {ours:>14} theirs {theirs:>14}")


def close(what, ours, theirs, tolerance=TOLERANCE):
    report(what, f"{ours:.7f}", f"{theirs:.7f}", abs(ours - theirs) <= tolerance)


def all_close(what, ours, theirs, tolerance=TOLERANCE):
    error = float(np.max(np.abs(np.asarray(ours) - np.asarray(theirs))))
    report(what, f"diff {error:.1e}", f"<= {tolerance:.0e}", error <= tolerance)


def make_case(name, cells, seed):
    """Clusters in a random subspace with noise; batches shift cells. `tight`: well apart, `overlap`: not; one label is in
    one batch only."""
    rng = np.random.default_rng(seed)
    width, labels, batches = {"overlap": (48, 6, 3), "tight": (20, 4, 2), "wide": (300, 8, 4)}[name]
    label = rng.choice(labels, size=cells, p=rng.dirichlet(np.full(labels, 4.0)))
    batch = rng.integers(0, batches, size=cells)
    batch[label == 0] = 0
    centres = rng.normal(size=(labels, width)) * {"overlap": 0.45, "tight": 3.0, "wide": 0.35}[name]
    scales = np.exp(rng.normal(size=width) * 0.5)
    x = (centres[label] + 0.4 * rng.normal(size=(batches, width))[batch] + rng.normal(size=(cells, width))) * scales + 5
    return x.astype(np.float32).astype(np.float64), label.astype(np.int32), batch.astype(np.int32)


def run_ours(program, x, label, batch):
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        (folder / "shape.txt").write_text(f"{x.shape[0]} {x.shape[1]}\n")
        x.astype(np.float64).tofile(folder / "matrix.f64")
        label.tofile(folder / "labels.i32")
        batch.tofile(folder / "batches.i32")
        subprocess.run([program, folder], check=True)
        return json.loads((folder / "result.json").read_text())


def compare_sklearn(x, label, batch, ours):
    from sklearn.decomposition import PCA
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import (accuracy_score, adjusted_rand_score, f1_score, normalized_mutual_info_score,
                                 silhouette_samples)
    from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    pca = PCA(n_components=0.95, svd_solver="full").fit(x)
    report("PCA: components for 95 %", ours["pca"]["kept"], pca.n_components_, ours["pca"]["kept"] == pca.n_components_)
    all_close("PCA: scores, signs included", np.reshape(ours["pca"]["scores"], (len(x), -1)), pca.transform(x))
    all_close("PCA: variance ratios", ours["pca"]["ratios"], pca.explained_variance_ratio_)

    distances, indices = NearestNeighbors(n_neighbors=15, algorithm="brute").fit(x).kneighbors(x)
    all_close("kNN: distances", np.reshape(ours["neighbours"]["distances"], (len(x), -1)), distances[:, 1:])
    same = np.mean(np.reshape(ours["neighbours"]["indices"], (len(x), -1)) == indices[:, 1:])
    report("kNN: indices", f"{same:.6f}", "1", same == 1)

    all_close("silhouette: every cell", ours["silhouette"]["samples"], silhouette_samples(x, label))
    close("NMI", ours["agreement"]["nmi"], normalized_mutual_info_score(label, batch))
    close("ARI", ours["agreement"]["ari"], adjusted_rand_score(label, batch))

    folds = np.array(ours["folds"])
    counts = np.array([[np.sum((label == c) & (folds == f)) for f in range(5)] for c in np.unique(label)])
    report("folds: largest difference within a label", int(np.max(np.ptp(counts, axis=1))), "<= 1", np.max(np.ptp(counts, axis=1)) <= 1)
    knn, probe = np.empty_like(label), np.empty_like(label)
    for fold in range(5):
        train, test = folds != fold, folds == fold
        knn[test] = KNeighborsClassifier(15, algorithm="brute").fit(x[train], label[train]).predict(x[test])
        model = make_pipeline(StandardScaler(), LogisticRegression(C=1.0, tol=1e-8, max_iter=5000))
        probe[test] = model.fit(x[train], label[train]).predict(x[test])
    for name, theirs in (("knn", knn), ("probe", probe)):
        differing = int(np.sum(np.array(ours[name]["predicted"]) != theirs))
        report(f"{name}: cells predicted otherwise", differing, "0", differing == 0)
        close(f"{name}: accuracy", ours[name]["accuracy"], accuracy_score(label, theirs))
        close(f"{name}: macro F1", ours[name]["macro_f1"], f1_score(label, theirs, average="macro"))

    model = LogisticRegression(C=1.0, tol=1e-9, max_iter=20000).fit(x, label)
    report("regression: converged", str(ours["regression"]["has_converged"]), "True", ours["regression"]["has_converged"])
    scores = x @ np.reshape(ours["regression"]["weights"], (-1, x.shape[1])).T + np.array(ours["regression"]["intercepts"])
    ours_p = np.exp(scores - scores.max(1, keepdims=True))
    all_close("regression: probabilities", ours_p / ours_p.sum(1, keepdims=True), model.predict_proba(x), 1e-4)


def compare_mmd(x, label, ours):
    from sklearn.metrics.pairwise import euclidean_distances, rbf_kernel

    worst_bandwidth = worst = worst_deviation = 0
    for pair in ours["mmd"]:
        a, b = x[label == pair["first"]], x[label == pair["second"]]
        both = np.concatenate([a, b])
        d = euclidean_distances(both)
        bandwidth = np.median(d[np.triu_indices(len(both), 1)])
        gamma = 1 / (2 * bandwidth**2)
        mmd2 = rbf_kernel(a, a, gamma).mean() - 2 * rbf_kernel(a, b, gamma).mean() + rbf_kernel(b, b, gamma).mean()
        worst_bandwidth = max(worst_bandwidth, abs(pair["bandwidth"] - bandwidth))
        worst = max(worst, abs(pair["mmd_squared"] - mmd2), abs(pair["mmd"] - np.sqrt(mmd2)))
        if pair["first"] != 0:
            continue
        # The bootstrap has other random numbers: its standard deviation and quantiles agree as samples of 1,000 do.
        k, n = rbf_kernel(both, both, gamma), len(a)
        rng = np.random.default_rng(0)
        w = np.concatenate([rng.multinomial(n, np.full(n, 1 / n), 1000) / n,
                            -rng.multinomial(len(b), np.full(len(b), 1 / len(b)), 1000) / len(b)], axis=1)
        values = np.sqrt(np.maximum(np.einsum("ri,ri->r", w @ k, w), 0))
        deviation = values.std(ddof=1)
        low, high = np.quantile(values, [0.025, 0.975])
        worst_deviation = max(worst_deviation, abs(np.log(pair["deviation"] / deviation)),
                              abs(pair["low"] - low) / deviation / 4, abs(pair["high"] - high) / deviation / 4)
    report("MMD: bandwidths", f"diff {worst_bandwidth:.1e}", "<= 1e-05", worst_bandwidth <= TOLERANCE)
    report("MMD: all pairs", f"diff {worst:.1e}", "<= 1e-05", worst <= TOLERANCE)
    report("MMD: bootstrap spread, relative", f"diff {worst_deviation:.3f}", "<= 0.12", worst_deviation <= 0.12)


def compare_scib(x, label, batch, ours):
    import jax

    jax.config.update("jax_enable_x64", True)  # its fp32 is not good to 1e-5
    import scib_metrics
    from scib_metrics.nearest_neighbors import NeighborsResults
    from sklearn.neighbors import NearestNeighbors

    close("scIB silhouette label", ours["silhouette"]["scaled"], scib_metrics.silhouette_label(x, label))
    close("scIB silhouette batch", ours["silhouette"]["batch"], scib_metrics.silhouette_batch(x, label, batch))
    close("scIB isolated labels", ours["silhouette"]["isolated"], scib_metrics.isolated_labels(x, label, batch))

    def neighbours(count):
        distances, indices = NearestNeighbors(n_neighbors=count, algorithm="brute").fit(x).kneighbors(x)
        distances[:, 0] = 0
        return NeighborsResults(indices=indices, distances=distances)

    close("scIB graph connectivity", ours["graph_connectivity"], scib_metrics.graph_connectivity(neighbours(15), label))
    close("scIB iLISI", ours["ilisi"], scib_metrics.ilisi_knn(neighbours(90), batch))
    return neighbours(15)


def compare_leiden(graph, label, ours):
    import igraph
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

    rows, columns, weights = (np.array(v) for v in zip(*ours["edges"]))
    theirs = graph.tocsr()
    theirs.eliminate_zeros()
    dense = np.zeros((len(label), len(label)))
    dense[rows.astype(int), columns.astype(int)] = weights
    all_close("connectivities (umap-learn)", dense, theirs.toarray())
    g = igraph.Graph.Weighted_Adjacency(theirs, mode="directed")
    g.to_undirected(mode="each")
    for resolution in (0.4, 1.0, 1.6):
        mine = [run for run in ours["leiden"] if run["resolution"] == resolution]
        qualities, nmis, aris, sizes = [], [], [], []
        for seed in range(8):
            igraph.set_random_number_generator(random.Random(seed))
            found = g.community_leiden("modularity", weights="weight", resolution=resolution, n_iterations=-1)
            qualities.append(g.modularity(found.membership, weights="weight", resolution=resolution))
            nmis.append(normalized_mutual_info_score(label, found.membership))
            aris.append(adjusted_rand_score(label, found.membership))
            sizes.append(len(found))
        q = [run["quality"] for run in mine]
        own = g.modularity(mine[0]["codes"], weights="weight", resolution=resolution)
        close(f"Leiden {resolution}: modularity of ours by igraph", q[0], own)
        spread = max(np.std(qualities), np.std(q))
        report(f"Leiden {resolution}: mean modularity, 8 seeds", f"{np.mean(q):.5f}", f"{np.mean(qualities):.5f}",
               np.mean(q) >= np.mean(qualities) - 3 * spread / np.sqrt(8) - 5e-4)
        for name, mean, values in (("NMI", "nmi", nmis), ("ARI", "ari", aris), ("clusters", "clusters", sizes)):
            v = [run[mean] for run in mine]
            allowed = 4 * np.sqrt((np.var(v) + np.var(values)) / 8) + (0.5 if name == "clusters" else 0.02)
            report(f"Leiden {resolution}: mean {name}", f"{np.mean(v):.4f}", f"{np.mean(values):.4f}",
                   abs(np.mean(v) - np.mean(values)) <= allowed)


def compare_umap(x, label, ours):
    import umap
    from sklearn.decomposition import PCA
    from sklearn.manifold import trustworthiness
    from sklearn.metrics import silhouette_score
    from sklearn.neighbors import NearestNeighbors

    a, b = umap.umap_.find_ab_params(1.0, 0.5)
    close("UMAP a", ours["umap"]["a"], a, 1e-4)
    close("UMAP b", ours["umap"]["b"], b, 1e-4)
    near = NearestNeighbors(n_neighbors=15).fit(x).kneighbors(return_distance=False)

    def kept(places):
        found = NearestNeighbors(n_neighbors=15).fit(places).kneighbors(return_distance=False)
        return np.mean([len(set(p) & set(q)) / 15 for p, q in zip(near, found)])

    def qualities(places):
        return trustworthiness(x, places, n_neighbors=15), kept(places), silhouette_score(places, label)

    mine = np.array([qualities(np.reshape(p, (-1, 2))) for p in ours["umap"]["places"]])
    theirs = np.array([qualities(umap.UMAP(n_neighbors=15, min_dist=0.5, random_state=seed, n_jobs=1).fit_transform(x))
                       for seed in range(2)])
    for i, (name, allowed) in enumerate((("trustworthiness", 0.01), ("part of 15 neighbours kept", 0.02), ("silhouette of labels", 0.08))):
        report(f"UMAP: {name}, 2 seeds", f"{mine[:, i].mean():.4f}", f"{theirs[:, i].mean():.4f}",
               mine[:, i].mean() >= theirs[:, i].mean() - allowed)
    pca = qualities(PCA(2).fit_transform(x))
    report("UMAP: neighbours kept, more than two components do", f"{mine[:, 1].mean():.4f}", f"{pca[1]:.4f}", mine[:, 1].mean() > pca[1])


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--eval-dump", required=True)
    parser.add_argument("--cells", type=int, default=900)
    parser.add_argument("--case", choices=["overlap", "tight", "wide"], action="append")
    arguments = parser.parse_args()
    for seed, name in enumerate(arguments.case or ["overlap", "tight", "wide"]):
        print(f"-- {name}", flush=True)
        x, label, batch = make_case(name, arguments.cells, seed)
        ours = run_ours(arguments.eval_dump, x, label, batch)
        compare_sklearn(x, label, batch, ours)
        compare_mmd(x, label, ours)
        neighbours = compare_scib(x, label, batch, ours)
        compare_leiden(neighbours.knn_graph_connectivities, label, ours)
        compare_umap(x, label, ours)
    print(f"compare_eval: {failures} failures")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
