"""Next-item training: windows along each history, softmax over the catalogue, stopped early on users it does not learn from."""

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from evaluate import evaluate, hstu_scores, nearby_co_rating_similarity
from hstu import Hstu, HstuConfig, l2_normalised
from movielens import MAX_LENGTH, PADDED_LENGTH, Catalogue, History, Split

WARM_UP_STEPS = 100
SHORTEST_TAIL = 20  # events after a random cut below which the rest is no window of its own


@dataclass(frozen=True)
class TrainingConfig:
    """Defaults are what the published bundle was trained with; README.md has what else was tried."""

    seed: int = 1
    dimension: int = 128
    layers: int = 2
    heads: int = 4
    input_dropout: float = 0.3
    output_dropout: float = 0.3
    temperature: float = 0.07
    negatives: int = 2048
    """Drawn uniformly from the catalogue for each batch and shared by its rows; 0 takes the whole catalogue."""
    horizon: int = 1
    """How many of the next events are targets of a row; the one j ahead weighs `horizon_decay` ^ (j - 1)."""
    horizon_decay: float = 0.5
    features: bool = True
    """Learn E as free rows plus a linear map of genres and year; folded into one table before use, so the bundle does not know."""
    warm_start: bool = True
    """Begin the free rows at the leading eigenvectors of the nearby co-rating matrix instead of noise."""
    batch_windows: int = 16
    learning_rate: float = 2e-3
    embedding_learning_rate: float = 3e-4
    """Slower than the rest, or the first hundred steps would wipe the warm start out."""
    average: float = 0.98
    """Decay per step of the running mean of the weights, which is what is evaluated and kept."""
    epochs: int = 30
    patience: int = 4


class Learner(nn.Module):
    """The model and what exists during training only."""

    def __init__(self, config: TrainingConfig, catalogue: Catalogue):
        super().__init__()
        width = config.dimension // config.heads
        self.model = Hstu(
            HstuConfig(
                vocabulary_size=len(catalogue.movie_ids),
                padded_length=PADDED_LENGTH,
                dimension=config.dimension,
                layers=config.layers,
                heads=config.heads,
                dqk=width,
                dv=width,
                input_dropout=config.input_dropout,
                output_dropout=config.output_dropout,
            )
        )
        self.register_buffer("features", torch.from_numpy(catalogue.features))
        self.feature_map = nn.Parameter(torch.empty(self.features.shape[1], config.dimension).normal_(0, 0.02)) if config.features else None

    def entities(self) -> Tensor:
        table = self.model.entities()
        return table if self.feature_map is None else table + self.features @ self.feature_map

    def folded(self) -> Hstu:
        """The model alone, with the features' share inside its table."""
        model = copy.deepcopy(self.model)
        with torch.no_grad():
            model.entity_embedding.copy_(self.entities())
        return model.eval()


def sample_windows(users: list[History], random: np.random.Generator) -> list[tuple[History, int, int]]:
    """
    An epoch's (user, start, last): rows start..last-2 predict start+1..last-1. A long history is cut at a random offset, so its windows
    begin anywhere; its first window, which serving sees most, always begins at 0.
    """
    windows = []
    for user in users:
        windows.append((user, 0, min(len(user), MAX_LENGTH + 1)))
        start = int(random.integers(1, MAX_LENGTH + 1))
        while len(user) > MAX_LENGTH + 1 and start + SHORTEST_TAIL < len(user):
            windows.append((user, start, min(len(user), start + MAX_LENGTH + 1)))
            start += MAX_LENGTH
    return windows


def batches(windows: list[tuple[History, int, int]], size: int, random: np.random.Generator) -> list[list[tuple[History, int, int]]]:
    """Shuffled batches of windows of about one length each, since padding costs as much as events do."""
    order = random.permutation(len(windows))
    pool = size * 8
    made = []
    for first in range(0, len(order), pool):
        alike = sorted((windows[index] for index in order[first : first + pool]), key=lambda window: window[2] - window[1])
        made += [alike[start : start + size] for start in range(0, len(alike), size)]
    return [made[index] for index in random.permutation(len(made))]


def collate(windows: list[tuple[History, int, int]], horizon: int) -> tuple[Tensor, Tensor, Tensor]:
    """ids [B, n], times [B, n+1], targets [B, n, horizon] (0 where there is none)."""
    n = max(last - start for _, start, last in windows) - 1
    ids = np.zeros((len(windows), n), np.int64)
    times = np.zeros((len(windows), n + 1), np.int64)
    targets = np.zeros((len(windows), n, horizon), np.int64)
    for row, (user, start, last) in enumerate(windows):
        length = last - start - 1
        ids[row, :length] = user.ids[start : last - 1]
        times[row, : length + 1] = user.times[start:last]
        for ahead in range(1, min(horizon, length) + 1):
            targets[row, : length + 1 - ahead, ahead - 1] = user.ids[start + ahead : last]
    return torch.from_numpy(ids), torch.from_numpy(times), torch.from_numpy(targets)


def batch_loss(learner: Learner, config: TrainingConfig, batch: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    ids, times, targets = batch
    table = learner.entities()
    valid = ids != 0
    rows = learner.model(ids, times, table)[valid] / config.temperature  # [R, D]
    targets = targets[valid]
    normal = l2_normalised(table)
    present = targets != 0
    weights = present * config.horizon_decay ** torch.arange(config.horizon)
    weights = weights / weights.sum(1, keepdim=True)
    if config.negatives == 0:
        logits = rows @ normal[1:].T  # [R, V]
        positive = logits.gather(1, (targets - 1).clamp(min=0))
        losses = logits.logsumexp(1, keepdim=True) - positive
    else:
        drawn = torch.randint(1, len(table), (config.negatives,))
        negative = rows @ normal[drawn].T  # [R, negatives]
        positive = (rows[:, None] * normal[targets]).sum(-1)
        for ahead in range(config.horizon):
            negative = negative.masked_fill(drawn[None] == targets[:, ahead, None], -1e4)
        losses = torch.logaddexp(positive, negative.logsumexp(1, keepdim=True)) - positive
    return (losses * weights).sum(1).mean()


def start_from_co_ratings(learner: Learner, users: list[History]) -> None:
    """
    The free rows begin where the best item-to-item baseline, cut to D dimensions, already ranks well; the layers and positions begin
    quiet, so that the first steps add to it instead of drowning it.
    """
    table = learner.model.entity_embedding
    similarity = nearby_co_rating_similarity(users, len(table) - 1)
    rank = table.shape[1]
    left, values, _ = torch.svd_lowrank(torch.from_numpy(np.log1p(3 * similarity)), q=rank + 16, niter=4)
    factors = left[:, :rank] * values[:rank].sqrt()
    # One norm for all, since candidates are compared by direction; movies that nobody here rated keep their noise.
    norms = factors.norm(dim=1, keepdim=True)
    with torch.no_grad():
        table.copy_(torch.where(norms > 1e-4, factors / norms.clamp(min=1e-4) * 0.5, table))
        learner.model.position_embedding.mul_(0.2)
        for layer in learner.model.layers:
            layer.output.weight.mul_(0.1)


def optimiser(learner: Learner, config: TrainingConfig) -> torch.optim.Optimizer:
    table = learner.model.entity_embedding
    rest = [parameter for parameter in learner.parameters() if parameter is not table]
    groups = [{"params": [table], "lr": config.embedding_learning_rate}, {"params": rest, "lr": config.learning_rate}]
    return torch.optim.Adam(groups, betas=(0.9, 0.98))


def train(config: TrainingConfig, catalogue: Catalogue, split: Split, report: Callable[[str], None]) -> tuple[Hstu, int]:
    """The model of the best epoch by NDCG@10 on the early-stopping users, and that epoch."""
    torch.manual_seed(config.seed)
    random = np.random.default_rng(config.seed)
    learner = Learner(config, catalogue)
    if config.warm_start:
        start_from_co_ratings(learner, split.fit)
    averaged = copy.deepcopy(learner)
    steps = optimiser(learner, config)
    warm_up = torch.optim.lr_scheduler.LambdaLR(steps, lambda step: min(1, (step + 1) / WARM_UP_STEPS))
    best, best_epoch, kept = -1.0, 0, averaged.folded()
    began, step = time.monotonic(), 0
    for epoch in range(1, config.epochs + 1):
        learner.train()
        losses = []
        for batch in batches(sample_windows(split.fit, random), config.batch_windows, random):
            loss = batch_loss(learner, config, collate(batch, config.horizon))
            steps.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(learner.parameters(), 1.0)
            steps.step()
            warm_up.step()
            step += 1
            move_average(averaged, learner, min(config.average, (step + 1) / (step + 10)))  # short at first
            losses.append(loss.item())
        model = averaged.folded()
        result = evaluate(hstu_scores(model), split.early_stopping)
        report(f"epoch {epoch}: loss {np.mean(losses):.3f}, early-stopping users {shown(result)}, {time.monotonic() - began:.0f} s")
        if result["NDCG@10"] > best:
            best, best_epoch, kept = result["NDCG@10"], epoch, model
        if epoch - best_epoch >= config.patience:
            break
    return kept, best_epoch


def move_average(averaged: Learner, learner: Learner, decay: float) -> None:
    with torch.no_grad():
        for mean, now in zip(averaged.parameters(), learner.parameters()):
            mean.lerp_(now, 1 - decay)


def shown(result: dict[str, float]) -> str:
    return " ".join(f"{name} {value:.4f}" for name, value in result.items())
