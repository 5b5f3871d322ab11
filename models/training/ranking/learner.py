"""The model and what exists during training only: where the rows of the entity table come from."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from movielens import PADDED_LENGTH
from ranking.data import ACTIONS, STATISTICS, TASKS, VALUE_EDGES, Stream, UserEvents
from ranking.stu import History, Stu, StuConfig


ROW_NORM = 0.5
"""Length that an item's learned row begins with."""
IDENTITY_NORM = 0.8


@dataclass(frozen=True)
class TrainingConfig:
    """Defaults are what the published bundle was trained with; README.md has what else was tried."""

    seed: int = 1
    dimension: int = 96
    identity: int = 32
    """Of the width: what an item is told from others by. Random, never learned, so that a candidate finds itself in the history."""
    layers: int = 2
    heads: int = 3
    divisor: float = 16.0
    hidden: int = 64
    input_dropout: float = 0.2
    output_dropout: float = 0.3
    row_dropout: float = 0.3
    """Chance that a token's learned row is left out, so that genres, year and statistics alone must do: an item nobody rated."""
    unknown: float = 0.02
    """Chance that an item is the out-of-vocabulary row instead."""
    merge: float = 0.5
    """Chance that a rating and the tag right after it are one token of two actions."""
    again: int = 8
    """Targets a window on items that its history has: this data has no second rating, so what is done with them again is a tag."""
    again_weight: float = 0.05
    retrieval_weight: float = 0.1
    """Weight of the next-item loss on history rows, which makes the same rows serve retrieval."""
    negatives: int = 512
    temperature: float = 0.07
    batch_windows: int = 16
    learning_rate: float = 1.5e-3
    table_learning_rate: float = 2e-4
    weight_decay: float = 0.01
    average: float = 0.98
    """Decay per step of the running mean of the weights, which is what is evaluated and kept."""
    epochs: int = 18
    patience: int = 3


class Learner(nn.Module):
    """
    A row of the entity table is [free + features @ feature_map + statistics @ statistic_map | identity]: folded into one table before it
    is used anywhere else, so the runtime does not know. The last row is that of everything outside the vocabulary.
    """

    def __init__(self, config: TrainingConfig, stream: Stream):
        super().__init__()
        width = config.dimension // config.heads
        self.config = config
        self.model = Stu(
            StuConfig(
                padded_length=PADDED_LENGTH,
                tasks=len(TASKS),
                actions=len(ACTIONS),
                value_buckets=len(VALUE_EDGES) + 1,
                dimension=config.dimension,
                layers=config.layers,
                heads=config.heads,
                dqk=width,
                dv=width,
                divisor=config.divisor,
                hidden=config.hidden,
                identity=config.identity,
                input_dropout=config.input_dropout,
                output_dropout=config.output_dropout,
            )
        )
        features = torch.from_numpy(stream.catalogue.features)
        content = config.dimension - config.identity
        self.register_buffer("features", torch.cat([features, torch.zeros_like(features[:1])]), persistent=False)
        self.register_buffer("identity", torch.randn(len(self.features), config.identity).sign() * (IDENTITY_NORM / config.identity**0.5))
        self.free = nn.Parameter(torch.zeros(len(self.features), content))
        self.feature_map = nn.Parameter(torch.empty(self.features.shape[1], content).normal_(0, 0.05))
        self.statistic_map = nn.Parameter(torch.empty(STATISTICS, content).normal_(0, 0.05))

    @property
    def unknown_row(self) -> int:
        return len(self.free) - 1

    def drawn_unknown(self) -> Tensor:
        """[1 + V + 1] bool: which items are out of the vocabulary in this step, wherever they stand in it."""
        return torch.rand(len(self.free)) < self.config.unknown

    def rows(self, ids: Tensor, statistics: Tensor, unknown: Tensor) -> Tensor:
        """Entity rows [..., D] of ids [...] with their statistics at that moment [..., S]."""
        ids = torch.where(unknown[ids], self.unknown_row, ids)
        kept = (torch.rand(ids.shape) >= self.config.row_dropout)[..., None]
        known = (ids != self.unknown_row)[..., None]
        content = self.free[ids] * kept + self.features[ids] @ self.feature_map + (statistics * known) @ self.statistic_map
        return torch.cat([content, self.identity[ids]], -1)

    def table(self, statistics: np.ndarray) -> Tensor:
        """[1 + V + 1, D]: the bundle's entity_embedding as of these statistics [V+1, S]; row 0, padding, is zero."""
        padded = torch.from_numpy(np.concatenate([statistics, np.zeros_like(statistics[:1])]))
        whole = torch.cat([self.free + self.features @ self.feature_map + padded @ self.statistic_map, self.identity], -1)
        return torch.cat([torch.zeros_like(whole[:1]), whole[1:]])


def start_from_co_ratings(learner: Learner, users: list[UserEvents], vocabulary_size: int) -> None:
    """
    Free rows begin at the leading eigenvectors of which items are rated near each other (evaluate.py's baseline), from training events
    only. It holds no ratings, hence none of the labels. An item that nobody has rated has none.
    """
    from evaluate import nearby_co_rating_similarity
    from movielens import History as RatedHistory

    similarity = nearby_co_rating_similarity([RatedHistory(user.user, user.entities, user.times) for user in users if len(user) > 1], vocabulary_size)
    rank = learner.free.shape[1]
    left, values, _ = torch.svd_lowrank(torch.from_numpy(np.log1p(3 * similarity)), q=rank + 16, niter=4)
    factors = left[:, :rank] * values[:rank].sqrt()
    norms = factors.norm(dim=1, keepdim=True)
    with torch.no_grad():
        learner.free[:-1].copy_(torch.where(norms > 1e-4, factors / norms.clamp(min=1e-4) * ROW_NORM, torch.zeros_like(factors)))


@dataclass(frozen=True)
class Batch:
    history: History
    ids: Tensor
    """[B, n+1] entity rows of the events; the first n are history, all n+1 are targets."""
    statistics: Tensor
    """[B, n+1, S]"""
    labels: Tensor
    """[B, n+1, K], NaN where there is none or the event is no target here."""
    valid: Tensor
    """[B, n+1]"""


Window = tuple[UserEvents, int, int, int]
"""(user, start, first, last): history begins at start, the targets are events first .. last-1."""


def collate(windows: list[Window]) -> Batch:
    longest = max(last - start for _, start, _, last in windows)
    shape = (len(windows), longest)
    ids, bits, buckets, times = (np.zeros(shape, np.int64) for _ in range(4))
    statistics = np.zeros((*shape, STATISTICS), np.float32)
    labels = np.full((*shape, len(TASKS)), np.nan, np.float32)
    valid = np.zeros(shape, bool)
    for row, (user, start, first, last) in enumerate(windows):
        length = last - start
        ids[row, :length] = user.entities[start:last]
        bits[row, :length] = user.bits[start:last]
        buckets[row, :length] = user.buckets[start:last]
        times[row, :length] = user.times[start:last]
        times[row, length:] = user.times[last - 1]
        statistics[row, :length] = user.statistics[start:last]
        labels[row, first - start : length] = user.labels[first:last]
        valid[row, :length] = True
    tensors = [torch.from_numpy(part) for part in (bits[:, :-1], buckets[:, :-1], times)]
    return Batch(History(*tensors), *(torch.from_numpy(part) for part in (ids, statistics, labels, valid)))
