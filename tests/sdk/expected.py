"""The expected answers of the experiment tools, computed with pandas from the results of the SDK."""
import math

import pandas as pd


class Told:
    """An experiment as the SDK represents it: a data frame of events and one of metrics."""

    def __init__(self, experiment, tags_by_record):
        self.id, self.summaries, self.rows = experiment["id"], experiment["summaries"], experiment["rows"]
        events, metrics = [], []
        for row in self.rows:
            tags = dict(tag.split(":", 1) for tag in tags_by_record.get(row["record"], ()))
            events.append({"event": row["event"], "dataset_record_id": row["record"], "run_iteration": row["run"], "failed": bool(row["error_type"]), "error_type": row["error_type"], **tags})
            for label, one in row["evaluations"].items():
                value = one["value"].lower() if isinstance(one["value"], str) else one["value"]
                metrics.append({"event": row["event"], "label": label, "value": value, "type": type_of(value), "evaluator_failed": one["failed"], "assessment": one["assessment"]})
        self.events = pd.DataFrame(events)
        self.metrics = pd.DataFrame(metrics).merge(self.events, on="event")

    def labels(self):
        return sorted(self.metrics["label"].unique())

    def known(self, dimensions):
        """The dimensions of an event."""
        return [dimension for dimension in dimensions if dimension in self.events and self.events[dimension].notna().any()]

    def metric_type(self, label):
        known = self.metrics[(self.metrics["label"] == label) & ~self.metrics["evaluator_failed"]]["type"]
        return known.mode()[0] if len(known) else "categorical"

    def stats(self, label, full, include_failed=False, where=None):
        """The statistics of a metric, with the keys of the summary or of the metric tool."""
        events = self.events if where is None else self.events[where]
        rows = self.metrics[(self.metrics["label"] == label) & self.metrics["event"].isin(events["event"])]
        left_out = 0 if include_failed else int(events["failed"].sum())
        if not include_failed:
            rows = rows[~rows["failed"]]
        good = rows[~rows["evaluator_failed"]]
        counts = {"count": len(good), "pass_count": int((good["assessment"] == "pass").sum()), "fail_count": int((good["assessment"] == "fail").sum()),
                  "evaluator_errors": int(rows["evaluator_failed"].sum()), "events_without_metric": len(events) - left_out - len(rows), "failed_events_left_out": left_out}
        return {**{key: n for key, n in counts.items() if n or key == "count"}, **described(self.metric_type(label), good["value"], full)}


def type_of(value):
    return {bool: "boolean", int: "score", float: "score", dict: "json", str: "categorical"}.get(type(value), "none")


def described(kind, values, full):
    """The statistics of values of one type."""
    if kind == "score":
        numbers = pd.Series(values, dtype=float)
        if numbers.empty:
            return {"mean": None}
        known = {"mean": numbers.mean(), "min": numbers.min(), "max": numbers.max(), "p50": numbers.quantile(0.5)}
        if full:
            known = {"mean": known["mean"], "std_dev": numbers.std(), "min_value": known["min"], "max_value": known["max"], "p50": known["p50"],
                     "p90": numbers.quantile(0.9), "p95": numbers.quantile(0.95)}
        return {key: None if pd.isna(value) else float(value) for key, value in known.items()}
    if kind == "boolean":
        flags = pd.Series(values, dtype=bool)
        return {"true_count": int(flags.sum()), "false_count": int((~flags).sum()), "true_rate": float(flags.mean()) if len(flags) else None}
    if kind == "json":
        table = pd.DataFrame(list(values))
        fields = {}
        for key in table.columns:
            column = table[key].dropna()
            numbers = column[column.map(lambda v: isinstance(v, (bool, int, float)))].astype(float)
            fields[key] = {"count": len(column), **({"mean": float(numbers.mean())} if len(numbers) else {})}
        return {"fields": fields}
    return {"value_counts" if full else "values": {word: int(n) for word, n in pd.Series(values).value_counts().items()}}


def mcnemar(lost, won):
    """The exact two-sided p-value, with integers until the last step."""
    total = lost + won
    tail = sum(math.comb(total, k) for k in range(min(lost, won) + 1))
    return min(1.0, 2 * tail / 2**total) if lost != won else 1.0


def holm(p_values):
    """Holm's correction of p-values by label."""
    ordered = pd.Series(p_values).sort_values(kind="stable")
    steps = ordered * pd.Series(range(len(ordered), 0, -1), index=ordered.index)
    return steps.clip(upper=1.0).cummax().to_dict()


class Compared:
    """One metric on both sides, record by record."""

    def __init__(self, baseline, candidate, label):
        self.pairs = self._side(baseline, label).merge(self._side(candidate, label), left_index=True, right_index=True, suffixes=("_b", "_c")).dropna(subset=["value_b", "value_c"])
        self.kind = baseline.metric_type(label)

    @staticmethod
    def _side(told, label):
        good = told.metrics[(told.metrics["label"] == label) & ~told.metrics["failed"] & ~told.metrics["evaluator_failed"]].copy()
        good["vote"] = good["value"].map(float) if told.metric_type(label) == "boolean" else good["assessment"].map({"pass": 1.0, "fail": 0.0})
        good["value"] = good["value"].map(float)
        return good.groupby("dataset_record_id")[["value", "vote"]].mean()

    def means(self, records=None):
        pairs = self.pairs if records is None else self.pairs[self.pairs.index.isin(records)]
        return len(pairs), pairs["value_b"].mean(), pairs["value_c"].mean()

    def flips(self):
        """The records that passed and now fail, and the reverse; an even split counts as neither."""
        before, after = self.pairs["vote_b"], self.pairs["vote_c"]
        return set(self.pairs.index[(before > 0.5) & (after < 0.5)]), set(self.pairs.index[(before < 0.5) & (after > 0.5)])

    def interval(self, resamples=4000):
        """NumPy's bootstrap of the mean difference, independent of the one under test."""
        import numpy
        differences = (self.pairs["value_c"] - self.pairs["value_b"]).to_numpy()
        random = numpy.random.default_rng(1)
        means = differences[random.integers(0, len(differences), (resamples, len(differences)))].mean(axis=1)
        return numpy.quantile(means, [0.025, 0.975])
