"""Predictions for every event from the user's window as serving holds it at that moment, AUC and normalised entropy."""

from collections.abc import Callable, Iterator

import numpy as np
import torch

from movielens import window_start
from ranking.data import TASKS, UserEvents
from ranking.learner import Learner, Window, collate

Wanted = Callable[[UserEvents], np.ndarray]
"""[n] bool: which of a user's events are to be predicted."""


def serving_windows(user: UserEvents, wanted: np.ndarray) -> Iterator[Window]:
    """Windows that together predict the wanted events (a run of them, to the end or not), each from the block window before it."""
    places = np.flatnonzero(wanted)
    if len(places) == 0:
        return
    first, end = int(places[0]), int(places[-1]) + 1
    while first < end:
        start, last = window_start(first), first + 1
        while last < end and window_start(last) == start:
            last += 1
        yield user, start, first, last
        first = last


def predict(learner: Learner, statistics: np.ndarray, users: list[UserEvents], wanted: Wanted, vocabulary_size: int | None = None) -> np.ndarray:
    """
    [events, K] probabilities in the order of the users and their wanted events, by a table as of `statistics`, which no later event
    has touched. Rows above `vocabulary_size` are out of the vocabulary.
    """
    learner.eval()
    parts = []
    with torch.no_grad():
        table = learner.table(statistics)
        for user in users:
            for window in serving_windows(user, wanted(user)):
                batch = collate([window])
                ids = batch.ids if vocabulary_size is None else batch.ids.masked_fill(batch.ids > vocabulary_size, learner.unknown_row)
                _, start, first, last = window
                positions = torch.arange(first - start, last - start)[None]
                rows = table[ids]
                _, targets = learner.model(batch.history, rows[:, :-1], rows[:, first - start :], positions)
                parts.append(torch.sigmoid(learner.model.logits(targets[0])))
    return torch.cat(parts).numpy().astype(np.float64)


def check_no_future(learner: Learner, statistics: np.ndarray, users: list[UserEvents]) -> float:
    """Predictions of many events in one pass against each from its own past alone; the largest difference, which must be rounding."""
    worst = 0.0
    for user in sorted(users, key=len)[-3:]:
        together = predict(learner, statistics, [user], lambda user: np.ones(len(user), bool))
        for place in np.linspace(0, len(user) - 1, 9).astype(int):
            alone = predict(learner, statistics, [user], lambda user: np.arange(len(user)) == place)
            worst = max(worst, float(np.abs(alone[0] - together[place]).max()))
    if worst > 1e-4:
        raise AssertionError(f"a prediction depends on what comes after it: {worst}")
    return worst


def gather(users: list[UserEvents], wanted: Wanted, column: str) -> np.ndarray:
    """A column of the wanted events, in the order of `predict`."""
    return np.concatenate([getattr(user, column)[wanted(user)] for user in users])


def auc(labels: np.ndarray, scores: np.ndarray) -> float:
    """Chance that a positive scores above a negative; ties count half (Mann and Whitney's U over midranks)."""
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    midranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    positives = labels.sum()
    negatives = len(labels) - positives
    if positives == 0 or negatives == 0:
        return float("nan")
    return float((midranks[labels == 1].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def normalised_entropy(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Log loss over that of always saying the mean of these labels (He et al., ADKDD 2014): below 1 is better than the mean, 0 perfect."""
    p = np.clip(probabilities, 1e-6, 1 - 1e-6)
    loss = -(labels * np.log(p) + (1 - labels) * np.log(1 - p)).mean()
    rate = labels.mean()
    return float(loss / -(rate * np.log(rate) + (1 - rate) * np.log(1 - rate))) if 0 < rate < 1 else float("nan")


def metrics(labels: np.ndarray, probabilities: np.ndarray) -> dict[str, dict[str, float]]:
    """Per task, over the events that have its label: labels and probabilities [events, K]."""
    result = {}
    for k, task in enumerate(TASKS):
        has = ~np.isnan(labels[:, k])
        own, p = labels[has, k], probabilities[has, k]
        result[task] = {"AUC": auc(own, p), "NE": normalised_entropy(own, p), "events": int(has.sum()), "rate": float(own.mean()) if has.any() else 0.0}
    return result


def shown(result: dict[str, dict[str, float]]) -> str:
    return " · ".join(f"{task} AUC {m['AUC']:.4f} NE {m['NE']:.4f}" for task, m in result.items())
