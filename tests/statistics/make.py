"""Numbers that the statistics of experiments are checked against.

    python -m venv venv && venv/bin/pip install scipy && venv/bin/python make.py > numbers.json

Percentiles, means and deviations are NumPy's, the exact tests and the bootstrap SciPy's. Holm's
correction is written out here, as SciPy has none.
"""

import json

import numpy as np
import scipy
from scipy import stats

rng = np.random.default_rng(20261121)


def described(values):
    a = np.array(values, dtype=float)
    return {
        "values": a.tolist(),
        "mean": a.mean(),
        "std_dev": a.std(ddof=1) if len(a) > 1 else None,
        "percentiles": {str(q): np.percentile(a, q * 100) for q in (0, 0.05, 0.25, 0.5, 0.9, 0.95, 0.99, 1)},
    }


def holm(p):
    order = np.argsort(p)
    out, largest = [0.0] * len(p), 0.0
    for rank, at in enumerate(order):
        largest = max(largest, min(1.0, (len(p) - rank) * p[at]))
        out[at] = largest
    return out


def bootstrap(differences):
    found = stats.bootstrap((differences,), np.mean, n_resamples=100_000, method="percentile",
                            confidence_level=0.95, vectorized=True, batch=1_000, rng=np.random.default_rng(1))
    low, high = found.confidence_interval
    return {"differences": list(differences), "low": low, "high": high, "standard_error": float(found.standard_error)}


counts = [(0, 0), (0, 1), (1, 0), (3, 3), (0, 5), (0, 6), (1, 9), (2, 12), (7, 19), (40, 61), (100, 100),
          (150, 201), (480, 560), (1200, 1333), (2400, 2600), (0, 900)]
p_lists = [[0.01, 0.04, 0.03], [0.5], [0.2, 0.2, 0.2], rng.uniform(0, 0.2, 12).tolist()]
differences = {
    "twelve": rng.normal(0.3, 1.0, 12).round(3).tolist(),
    "forty": rng.normal(-0.1, 0.4, 40).round(3).tolist(),
    "skewed": rng.exponential(1.0, 150).round(4).tolist(),
    "votes": rng.choice([-1.0, -0.5, 0.0, 0.5, 1.0], 700, p=[0.1, 0.05, 0.7, 0.05, 0.1]).tolist(),
    "thousands": rng.normal(0.02, 0.5, 5_000).round(2).tolist(),
}

print(json.dumps({
    "scipy": scipy.__version__,
    "numpy": np.__version__,
    "described": [described(v) for v in (
        [1], [1, 2], [0.1, 0.2, 0.3, 0.4], rng.normal(size=101).tolist(), (rng.normal(size=1000) * 1e6).round(3).tolist(),
        [1e15, 1, -1e15, 3])],
    "mcnemar": [{"b": b, "c": c, "p": stats.binomtest(b, b + c, 0.5).pvalue if b + c else 1.0} for b, c in counts],
    "holm": [{"p": p, "corrected": holm(p)} for p in p_lists],
    "bootstrap": {name: bootstrap(d) for name, d in differences.items()},
}))
