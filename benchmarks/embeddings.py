"""Embeddings: neighbours against scikit-learn and faiss, probes against loops, whole analyses in time and memory.

    make bench name=embeddings                      # the first three, minutes
    make bench name=embeddings parts=whole          # 100 000 objects x 3 modalities
    make bench name=embeddings parts=stream         # 1 000 000 x 256 from disk

Rows of earlier calls that a call does not measure are kept.
"""

import importlib.metadata
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parent))

import numpy as np
from compare import RESULTS, interleaved, row, write_table

HERE = Path(__file__).resolve().parent
sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != HERE]  # this file has the package's name

ALL = ("knn", "memory", "probes", "whole", "stream")
QUICK = ALL[:3]


def version(name):
    return importlib.metadata.version(name)


def peak_gb():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def child(part):
    """Run a part in a process of its own, so that the peak is its own; what it prints last is JSON."""
    done = subprocess.run([sys.executable, __file__, f"child={part}"], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr[-3000:])
    return json.loads(done.stdout.strip().splitlines()[-1])


def goal(case, value, target, unit):
    """A row for a bound: ratio bound / ours, above 1 where it holds."""
    return row(f"{case}: {value:.2f} {unit}", [value], "bound", f"{target:g} {unit}", [target], "≥ 1")


def knn(objects=200_000, dimension=768, queries=256, k=10):
    from sklearn.neighbors import NearestNeighbors

    from embeddings.vectors.neighbours import nearest_rows

    x = np.random.default_rng(0).standard_normal((objects, dimension), dtype=np.float32)
    q = x[:queries].copy()
    found = {}
    flat = None
    cases = {"ours": lambda: found.update(ours=nearest_rows(q, x, k)[0])}
    model = NearestNeighbors(n_neighbors=k, algorithm="brute").fit(x)
    cases["scikit-learn"] = lambda: found.update(sklearn=model.kneighbors(q)[1])
    try:
        import faiss

        faiss.omp_set_num_threads(1)
        flat = faiss.IndexFlatL2(dimension)
        flat.add(x)
        cases["faiss"] = lambda: found.update(faiss=flat.search(q, k)[1])
    except ImportError:
        print("faiss is not installed (pip install faiss-cpu): leaving it out")
    seconds = interleaved(cases, rounds=3)
    assert (found["ours"] == found["sklearn"]).mean() > 0.999
    case = f"{queries} queries among {objects} x {dimension}"
    rows = [row(case, seconds["ours"], "scikit-learn brute", version("scikit-learn"), seconds["scikit-learn"], "≥ 1")]
    if flat is not None:
        assert (found["ours"] == found["faiss"]).mean() > 0.999
        rows.append(row(case, seconds["ours"], "faiss IndexFlatL2", version("faiss-cpu"), seconds["faiss"], "≥ 0.67"))
    return rows


def memory_child():
    from embeddings.machine.memory import neighbour_bytes
    from embeddings.vectors.neighbours import nearest_rows

    x = np.random.default_rng(0).standard_normal((200_000, 768), dtype=np.float32)
    nearest_rows(x[:2048], x, 10)
    # of all queries at once only the lists of candidates grow
    return {"gb": peak_gb() + (200_000 - 2048) * 18 * 12 / 1e9, "estimate": neighbour_bytes(200_000, 768, 10) / 1e9}


def memory():
    found = child("memory")
    return [goal("peak memory of neighbours, 200000 x 768", found["gb"], 4.0, "GB")]


def probes(objects=2500, dimension=160, properties=12):
    from sklearn.linear_model import Ridge, RidgeCV
    from sklearn.model_selection import GridSearchCV, LeaveOneGroupOut, cross_val_predict

    from embeddings.probes.ridge import PENALTIES, cross_validated_ridge

    rng = np.random.default_rng(0)
    x = rng.standard_normal((objects, dimension)) * np.geomspace(3, 0.1, dimension)
    y = x @ rng.standard_normal((dimension, properties)) / 10 + rng.standard_normal((objects, properties))
    fold = np.arange(objects) % 5
    alphas = PENALTIES * objects * 0.6 * x.var(axis=0).mean()
    outer = list(LeaveOneGroupOut().split(x, y, fold))

    def generalised():
        """Leave-one-out by one decomposition per property and fold: cheaper, and blind to groups."""
        return np.stack([cross_val_predict(RidgeCV(alphas), x, y[:, t], cv=outer) for t in range(properties)], axis=1)

    def nested(of=2):
        """Folds within folds, as ours: penalty chosen by whole groups. Two properties; the rest costs the same."""
        out = np.empty((objects, of))
        for t in range(of):
            for train, test in outer:
                search = GridSearchCV(Ridge(), {"alpha": alphas}, cv=LeaveOneGroupOut(), scoring="neg_mean_squared_error")
                out[test, t] = search.fit(x[train], y[train, t], groups=fold[train]).predict(x[test])
        return out

    kept = {}
    seconds = interleaved(
        {
            "ours": lambda: kept.update(ours=cross_validated_ridge(x, y, fold).predictions),
            "RidgeCV": lambda: kept.update(generalised=generalised()),
            "nested": lambda: kept.update(nested=nested()),
        },
        rounds=2,
    )
    assert np.abs(kept["ours"][:, :2] - kept["nested"]).max() < 0.2 * y.std()
    seconds["nested"] = [s * properties / 2 for s in seconds["nested"]]
    case, peer = f"{properties} properties, {objects} x {dimension}, 5 folds, 19 penalties", "scikit-learn loop, "
    return [
        row(case, seconds["ours"], f"{peer}GridSearchCV(Ridge) by group", version("scikit-learn"), seconds["nested"], "≥ 5"),
        row(case, seconds["ours"], f"{peer}RidgeCV (no groups)", version("scikit-learn"), seconds["RidgeCV"], "≥ 5"),
    ]


def whole_child(objects=100_000, dimension=768):
    from embeddings.analysis import analyse
    from embeddings.comparing.compared import Comparing
    from embeddings.figures import draw
    from embeddings.finding import Mapping2D
    from embeddings.finding.found import Finding
    from embeddings.probes.encoded import Probing
    from embeddings.samples import synthetic
    from skyloom.run import Run

    sample = synthetic(objects, dimension, seed=0, models=["alpha"])
    with tempfile.TemporaryDirectory() as folder:
        run = Run.create(folder, {"pkg": "embeddings", "experiment": "whole"})
        run.acquire()
        began, cpu = time.monotonic(), time.process_time()
        found = analyse(
            run, sample, lambda *a: draw(*a, maps=4), maps=Mapping2D(method="pca"), probes=Probing(tree_properties=10),
            comparison=Comparing(permutations=39), finding=Finding(),
        )  # fmt: skip
        seconds, cpu = time.monotonic() - began, time.process_time() - cpu
    return {"minutes": seconds / 60, "cpu_minutes": cpu / 60, "gb": peak_gb(), "gap": float(found["test/r2_gap"])}


def whole():
    found = child("whole")
    case = "whole analysis but UMAP, 100000 x 3 x 768, one thread"
    return [
        goal(f"{case}, CPU", found["cpu_minutes"], 10.0, "min"),
        goal(f"{case}, clock", found["minutes"], 10.0, "min"),
        goal(f"{case}, largest gap to closed form", found["gap"], 0.03, "in R2"),
    ]


def stream_child(objects=1_000_000, dimension=256):
    from embeddings import EmbeddingSet, join, read
    from embeddings.finding.search import Index
    from embeddings.objects.catalogue import Catalogue
    from embeddings.objects.folds import grouped_folds
    from embeddings.probes.ridge import cross_validated_ridge
    from embeddings.samples.prepared import prepare

    rng = np.random.default_rng(0)
    ids = 2_700_000_000_000_000_000 + np.cumsum(rng.integers(1, 1000, objects))
    with tempfile.TemporaryDirectory(dir=os.environ.get("SKYLOOM_CACHE")) as folder:
        mass = rng.standard_normal(objects).astype(np.float32)
        array = np.lib.format.open_memmap(f"{folder}/embeddings.npy", "w+", np.float32, (objects, dimension))
        direction = rng.standard_normal(dimension).astype(np.float32)
        for start in range(0, objects, 50_000):
            part = slice(start, start + 50_000)
            array[part] = rng.standard_normal((len(array[part]), dimension), dtype=np.float32) + mass[part, None] * direction
        array.flush()
        del array
        order = rng.permutation(objects)
        np.save(f"{folder}/object_ids.npy", ids)
        began, cpu = time.monotonic(), time.process_time()
        embedded: EmbeddingSet = read(folder, "disk")
        catalogue = Catalogue({"object_id": ids[order]}, {"LOGM": 10 + 0.5 * mass[order].astype(float)})
        sample = join([embedded], catalogue)
        (e,) = sample.embeddings
        y = sample.properties["log_mass"][:, None]
        fit = cross_validated_ridge(e, y, grouped_folds(sample.groups, 5, 0), e.present)
        p = prepare(sample, 32)[e.name]
        found = Index(e, e.present, approximate=False).like(np.arange(0, objects, objects // 1000), 10)
        near = Index(p.reduced, p.present, approximate=True)
        near.like(np.arange(10_000), 10)
        cpu, seconds = time.process_time() - cpu, time.monotonic() - began
        r2 = 1 - ((y - fit.predictions) ** 2).sum() / ((y - y.mean()) ** 2).sum()
        apart = np.abs(y[found.rows[:, 0], 0] - y[:: objects // 1000, 0]).mean()
        return {"gb": peak_gb(), "minutes": seconds / 60, "cpu_minutes": cpu / 60, "r2": float(r2), "apart": float(apart)}


def stream():
    found = child("stream")
    print(found)
    case = "1000000 x 256 from disk: identifiers joined, linear probe, components, 1000 exact searches, an index"
    return [goal(f"{case}, peak memory", found["gb"], 8.0, "GB"), goal(f"{case}, CPU", found["cpu_minutes"], 15.0, "min")]


def main(words):
    own = dict(word.partition("=")[::2] for word in words)
    if "child" in own:
        print(json.dumps({"memory": memory_child, "whole": whole_child, "stream": stream_child}[own["child"]]()))
        return
    wanted = own.get("parts", ",".join(QUICK)).split(",")
    made = {part: globals()[part]() for part in wanted}
    stored = RESULTS / "embeddings.json"
    before = json.loads(stored.read_text()).get("rows", []) if stored.exists() else []
    rows = [{**one, "part": part} for part, several in made.items() for one in several]
    rows += [one for one in before if one.get("part") not in made]
    rows.sort(key=lambda one: ALL.index(one["part"]))
    note = (
        "One thread, CPU seconds, rounds interleaved. Neighbours: the same float32 vectors; ours chooses among "
        "k + 8 candidates by float64 differences besides. Probes: the same folds and penalties; the nested "
        "loop is timed on two properties and scaled to all. Rows against a bound: above 1 the bound holds. "
        "`parts=whole` and `parts=stream` are measured apart."
    )
    write_table("embeddings", "Embeddings: neighbours, probes, whole analyses", rows, note)


if __name__ == "__main__":
    main(sys.argv[1:])
