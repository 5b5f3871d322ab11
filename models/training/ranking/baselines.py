"""What the model must beat, on the same events with the same labels: popularity, a logistic regression on counts, retrieval's dot product."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

from hstu import Hstu, HstuConfig, l2_normalised
from movielens import PADDED_LENGTH, window_start
from ranking.data import PRIOR, RATING, TAG, TASKS, Stream, UserEvents
from ranking.evaluate import Wanted, gather


@dataclass(frozen=True)
class Logistic:
    """p = sigmoid((x - mean) / scale @ weight + bias), fitted by Newton's method with a ridge of 1."""

    mean: np.ndarray
    scale: np.ndarray
    weight: np.ndarray

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """x [events, F] -> [events]"""
        return 1 / (1 + np.exp(-np.clip(self._design(x) @ self.weight, -30, 30)))

    def _design(self, x: np.ndarray) -> np.ndarray:
        return np.concatenate([(x - self.mean) / self.scale, np.ones((len(x), 1))], 1)

    @staticmethod
    def fit(x: np.ndarray, labels: np.ndarray, ridge: float = 1.0, steps: int = 30) -> "Logistic":
        model = Logistic(x.mean(0), x.std(0) + 1e-9, np.zeros(x.shape[1] + 1))
        design = model._design(x)
        penalty = ridge * np.eye(design.shape[1])
        penalty[-1, -1] = 0
        for _ in range(steps):
            p = 1 / (1 + np.exp(-np.clip(design @ model.weight, -30, 30)))
            gradient = design.T @ (labels - p) - penalty @ model.weight
            curvature = (design * np.maximum(p * (1 - p), 1e-6)[:, None]).T @ design + penalty
            step = np.linalg.solve(curvature, gradient)
            # Newton's whole step may overshoot where the labels are almost separable.
            model.weight[:] += step * min(1, 5 / np.abs(step).max())
            if np.abs(step).max() < 1e-8:
                break
        return model


def fit_per_task(x: np.ndarray, labels: np.ndarray) -> list[Logistic]:
    return [Logistic.fit(x[has], labels[has, k]) for k in range(len(TASKS)) for has in [~np.isnan(labels[:, k])]]


def popularity(stream: Stream, before: int, wanted: Wanted) -> np.ndarray:
    """[events, K]: the share of the item's training events with the label, shrunk towards everybody's as PRIOR events."""
    positive, count = np.zeros((2, len(stream.years), len(TASKS)))
    for user in stream.users:
        known = user.order < before
        labels = user.labels[known]
        np.add.at(positive, user.entities[known], np.nan_to_num(labels))
        np.add.at(count, user.entities[known], ~np.isnan(labels))
    overall = positive.sum(0) / count.sum(0)
    rates = (positive + PRIOR * overall) / (count + PRIOR)
    return rates[gather(stream.users, wanted, "entities")]


RECENT = 3
"""Last columns of user_counts: means that forget."""


def user_counts(user: UserEvents) -> np.ndarray:
    """[n, 15] of the user before each event: shrunk rates, recent rates, counts, gaps, and what was done with this item or last."""
    rated, tagged = (user.bits & RATING) > 0, (user.bits & TAG) > 0
    before = lambda x: np.concatenate([[0.0], np.cumsum(x)[:-1]])
    ratings, tags = before(rated), before(tagged)
    like, love = (before(np.nan_to_num(user.labels[:, TASKS.index(task)])) for task in ("like", "love"))
    mean = before(np.where(rated, user.buckets / 2, 0))
    gap = np.log1p(np.diff(user.times, prepend=user.times[0]))
    earlier = np.zeros((len(user), 3))
    recent = np.zeros((len(user), 3))
    running = np.array([0.47, 0.21, 3.5])  # like, love, stars: means that forget, a fifth at each rating
    last_row, tagged_rows = {}, {}
    for i, row in enumerate(user.entities.tolist()):
        earlier[i] = row in last_row, i > 0 and user.entities[i - 1] == row, tagged_rows.get(row, 0) > 0
        last_row[row] = i
        tagged_rows[row] = tagged_rows.get(row, 0) + tagged[i]
        recent[i] = running
        if rated[i]:
            running = running + 0.2 * (np.array([*user.labels[i, :2], user.buckets[i] / 2]) - running)
    return np.stack(
        [
            (like + 0.47 * 5) / (ratings + 5),
            (love + 0.21 * 5) / (ratings + 5),
            (mean + 3.5 * 5) / (ratings + 5),
            np.log1p(ratings),
            np.log1p(tags),
            (tags + 0.1) / (ratings + tags + 5),
            gap,
            np.log1p(user.times - user.times[0]),
            np.concatenate([[0.0], tagged[:-1]]),
            *earlier.T,
            *recent.T,
        ],
        1,
    )


def count_features(stream: Stream, wanted: Wanted, statistics: np.ndarray | None, recent: bool) -> np.ndarray:
    """[events, F]: the user's counts so far beside the item's, as of `statistics`, or of the moment before the event where None."""
    of_user = np.concatenate([user_counts(user)[wanted(user)] for user in stream.users])
    of_user = of_user if recent else of_user[:, :-RECENT]
    of_item = gather(stream.users, wanted, "statistics") if statistics is None else statistics[gather(stream.users, wanted, "entities")]
    return np.concatenate([of_user, of_item], 1)


def logistic_on_counts(stream: Stream, before: int, wanted: Wanted, live: bool, recent: bool) -> np.ndarray:
    """
    [events, K]. Learned from training events, each with the counts before it; items then as of the cut, like the model's table, or
    `live`: counted on through the evaluated period, which the model's bundle cannot know. `recent`: with the means of the last few
    ratings, which are no counts, but which a sequence model should be measured against.
    """
    training = lambda user: user.order < before
    models = fit_per_task(count_features(stream, training, None, recent), gather(stream.users, training, "labels"))
    x = count_features(stream, wanted, None if live else stream.snapshots[before], recent)
    return np.stack([model(x) for model in models], 1)


def load_retrieval(folder: Path) -> tuple[Hstu, dict[str, int]]:
    """The research model of a bundle, and the row of each of its entities."""
    config = json.loads((folder / "config.json").read_text())
    model = Hstu(
        HstuConfig(config["vocabularySize"], PADDED_LENGTH, config["dimension"], config["layers"], config["heads"], config["dqk"], config["dv"])
    )
    state = load_file(folder / "model.safetensors")
    state.pop("popularity", None)
    renamed = {name.replace("output_weight", "output.weight").replace("output_bias", "output.bias"): part for name, part in state.items()}
    model.load_state_dict({name: part.T if name.endswith("output.weight") else part for name, part in renamed.items()})
    entities = (folder / "entities.txt").read_text(encoding="utf-8").split("\n")[:-1]
    return model.eval(), {entity: row for row, entity in enumerate(entities, start=1)}


def retrieval_dots(folder: Path, stream: Stream, wanted: Wanted) -> np.ndarray:
    """[events] dot product of the event's item with the user's row at that moment over the ratings before; 0 where there are none."""
    model, row_of = load_retrieval(folder)
    row_by_ours = np.array([0, *(row_of[entity] for entity in stream.catalogue.entity_ids())])
    parts = []
    with torch.no_grad():
        table = l2_normalised(model.entities())
        for user in stream.users:
            chosen = wanted(user)
            rated = (user.bits & RATING) > 0
            before = np.cumsum(rated) - rated
            ids, times = row_by_ours[user.entities[rated]], user.times[rated]
            dots = np.zeros(len(user))
            starts = np.array([window_start(int(count)) for count in before])
            for start in np.unique(starts[chosen]) if chosen.any() else []:
                at = np.flatnonzero(chosen & (starts == start) & (before > 0))
                if len(at) == 0:
                    continue
                last = int(before[at].max())
                window_times = np.append(times[start:last], times[last] if last < len(times) else user.times[at[-1]])
                rows = model(torch.from_numpy(ids[None, start:last]), torch.from_numpy(window_times[None]))[0]
                targets = table[torch.from_numpy(row_by_ours[user.entities[at]])]
                dots[at] = (rows[torch.from_numpy(before[at] - 1 - start)] * targets).sum(-1).numpy()
            parts.append(dots[chosen])
    return np.concatenate(parts)


def calibrated(train_scores: np.ndarray, train_labels: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """[events, K]: one score made a probability by a logistic of one variable for each task."""
    return np.stack([model(scores[:, None]) for model in fit_per_task(train_scores[:, None], train_labels)], 1)
