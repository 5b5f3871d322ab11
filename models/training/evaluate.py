"""Ranks every event of a user from the 6th on among the whole catalogue, and the two baselines on the same events."""

from collections.abc import Callable, Iterator

import numpy as np
import torch

from hstu import Hstu, l2_normalised
from movielens import History, window_start

FIRST_EVENT = 5  # the 6th rating, counted from 0

Scores = Callable[[History], np.ndarray]
"""A method: [len - FIRST_EVENT, V+1] scores, row r from the events before FIRST_EVENT + r (column 0 is padding and ignored)."""


def windows(history: History) -> Iterator[tuple[int, int, int]]:
    """(start, first, last): events first..last-1 are all predicted from the window that begins at start."""
    first = FIRST_EVENT
    while first < len(history):
        start, last = window_start(first), first
        while last < len(history) and window_start(last) == start:
            last += 1
        yield start, first, last
        first = last


def hstu_scores(model: Hstu) -> Scores:
    """One forward per window: row i's query time is event i+1's, so the rows of one window answer all its events."""
    model.eval()
    with torch.no_grad():
        candidates = l2_normalised(model.entities())

    def scores(history: History) -> np.ndarray:
        parts = []
        with torch.no_grad():
            for start, first, last in windows(history):
                ids = torch.from_numpy(history.ids[None, start : last - 1])
                times = torch.from_numpy(history.times[None, start:last])
                rows = model(ids, times)[0, first - 1 - start :]
                parts.append(rows @ candidates.T)
        return torch.cat(parts).numpy()

    return scores


def item_counts(users: list[History], vocabulary_size: int) -> np.ndarray:
    counts = np.zeros(vocabulary_size + 1, np.float32)
    for user in users:
        np.add.at(counts, user.ids, 1)
    return counts


def popularity_scores(users: list[History], vocabulary_size: int) -> Scores:
    counts = item_counts(users, vocabulary_size)
    return lambda history: np.broadcast_to(counts, (max(0, len(history) - FIRST_EVENT), len(counts)))


def co_rating_similarity(users: list[History], vocabulary_size: int, popularity_power: float) -> np.ndarray:
    """[V+1, V+1]: users who rated both, over (count_a * count_b) ^ popularity_power (0.5 is the cosine); the diagonal is zero."""
    rated = np.zeros((len(users), vocabulary_size + 1), np.float32)
    for row, user in enumerate(users):
        rated[row, user.ids] = 1
    scale = np.maximum(rated.sum(0), 1) ** -popularity_power
    similarity = (rated.T @ rated) * scale[:, None] * scale[None, :]
    np.fill_diagonal(similarity, 0)
    return similarity


def nearby_co_rating_similarity(users: list[History], vocabulary_size: int, popularity_power: float = 0.2, reach: int = 100) -> np.ndarray:
    """As co_rating_similarity, but a pair d ratings apart in a history counts 1/d, and not at all beyond `reach`."""
    similarity = np.zeros((vocabulary_size + 1, vocabulary_size + 1), np.float32)
    for user in users:
        for distance in range(1, min(reach, len(user) - 1) + 1):
            np.add.at(similarity, (user.ids[:-distance], user.ids[distance:]), 1 / distance)
    scale = np.maximum(item_counts(users, vocabulary_size), 1) ** -popularity_power
    similarity = (similarity + similarity.T) * scale[:, None] * scale[None, :]
    np.fill_diagonal(similarity, 0)
    return similarity


def co_rating_scores(similarity: np.ndarray, counts: np.ndarray, last_items: int) -> Scores:
    """Sum of the similarities to the user's last k items; popularity decides only between equals."""
    tie_break = counts / (counts.sum() * 1e6)

    def scores(history: History) -> np.ndarray:
        rows = np.empty((max(0, len(history) - FIRST_EVENT), similarity.shape[0]), np.float32)
        for row, event in enumerate(range(FIRST_EVENT, len(history))):
            rows[row] = similarity[history.ids[max(0, event - last_items) : event]].sum(0) + tie_break
        return rows

    return scores


def ranks(scores: np.ndarray, history: History, filter_seen: bool) -> np.ndarray:
    """The true item's rank in each row, 1 is best; ties share their mean rank."""
    scores = scores.copy()
    scores[:, 0] = -np.inf
    if filter_seen:
        for row, event in enumerate(range(FIRST_EVENT, len(history))):
            scores[row, history.ids[:event]] = -np.inf  # a movie is rated once, so the true item is never among them
    true = np.take_along_axis(scores, history.ids[FIRST_EVENT:, None], 1)
    return 1 + (scores > true).sum(1) + ((scores == true).sum(1) - 1) / 2


def metrics(all_ranks: np.ndarray) -> dict[str, float]:
    gain = np.where(all_ranks <= 10, 1 / np.log2(all_ranks + 1), 0)
    return {
        "HR@10": float((all_ranks <= 10).mean()),
        "NDCG@10": float(gain.mean()),
        "HR@50": float((all_ranks <= 50).mean()),
        "MRR": float((1 / all_ranks).mean()),
    }


def evaluate(method: Scores, users: list[History], filter_seen: bool = True) -> dict[str, float]:
    """Every event counts once, so a long history weighs more than a short one."""
    return metrics(np.concatenate([ranks(method(user), user, filter_seen) for user in users if len(user) > FIRST_EVENT]))
