"""The table: the model against what it must beat, on the same later events."""

from pathlib import Path

import numpy as np

from ranking.baselines import calibrated, logistic_on_counts, popularity, retrieval_dots
from ranking.data import TASKS, Stream
from ranking.evaluate import Wanted, gather, metrics, predict, shown
from ranking.learner import Learner
from ranking.train import Report

CALIBRATION_EVENTS = 10_000
"""The last training events, on which the dot product learns to be a probability."""
NAMES = {
    "model": "target-aware STU",
    "counts": "logistic regression on counts",
    "recentCounts": "that, with means of the user's last few ratings",
    "liveCounts": "that, items counted on through the later events",
    "popularity": "popularity: the item's training rate",
    "dot": "the retrieval bundle's dot product, calibrated",
}
Table = dict[str, dict[str, dict[str, dict[str, float]]]]
"""group of events -> method -> task -> metric"""


def compare(learner: Learner, stream: Stream, before: int, last: int, retrieval: Path | None, report: Report) -> Table:
    """Everything predicted for the events at places before .. last-1, from training events before `before`; all, and by group of users."""
    wanted: Wanted = lambda user: (user.order >= before) & (user.order < last)
    labels = gather(stream.users, wanted, "labels")
    methods = {
        "model": predict(learner, stream.snapshots[before], stream.users, wanted),
        "counts": logistic_on_counts(stream, before, wanted, live=False, recent=False),
        "recentCounts": logistic_on_counts(stream, before, wanted, live=False, recent=True),
        "liveCounts": logistic_on_counts(stream, before, wanted, live=True, recent=True),
        "popularity": popularity(stream, before, wanted),
    }
    if retrieval is not None:
        recent: Wanted = lambda user: (user.order >= before - CALIBRATION_EVENTS) & (user.order < before)
        known = retrieval_dots(retrieval, stream, recent)
        methods["dot"] = calibrated(known, gather(stream.users, recent, "labels"), retrieval_dots(retrieval, stream, wanted))
    in_training = np.concatenate([np.full(int(wanted(user).sum()), bool((user.order < before).any())) for user in stream.users])
    rated = stream.snapshots[before][:, 3] > -1  # the log of the item's ratings
    new_item = ~rated[gather(stream.users, wanted, "entities")]
    groups = {"all": np.ones(len(labels), bool), "unseenUsers": ~in_training, "knownUsers": in_training, "unratedItems": new_item}
    table: Table = {}
    for group, chosen in groups.items():
        table[group] = {}
        for method, probabilities in methods.items():
            table[group][method] = metrics(labels[chosen], probabilities[chosen])
            report(f"{group}, {method}: {shown(table[group][method])}")
    return table


def markdown(table: Table, group: str) -> str:
    """One group as the README has it."""
    best = {
        (task, metric): pick(table[group][method][task][metric] for method in table[group])
        for task in TASKS
        for metric, pick in (("AUC", max), ("NE", min))
    }
    lines = ["| | " + " | ".join(f"{task} AUC | {task} NE" for task in TASKS) + " |", "| --- |" + " --- |" * (2 * len(TASKS))]
    for method, tasks in table[group].items():
        cells = [(tasks[task][metric], best[task, metric]) for task in TASKS for metric in ("AUC", "NE")]
        shown_cells = [f"**{value:.4f}**" if value == top else f"{value:.4f}" for value, top in cells]
        lines.append(f"| {NAMES[method]} | " + " | ".join(shown_cells) + " |")
    return "\n".join(lines)


def rounded(table: Table) -> Table:
    """Four decimals; a metric that does not exist (one kind of label only) is null in JSON."""
    clean = lambda value: value if isinstance(value, int) else None if value != value else round(value, 4)
    return {g: {m: {t: {k: clean(v) for k, v in own.items()} for t, own in tasks.items()} for m, tasks in methods.items()} for g, methods in table.items()}
