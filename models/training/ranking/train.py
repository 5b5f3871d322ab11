"""Multi-task training over target rows: every event of a window is asked about before it is seen, from a history of a drawn length."""

import copy
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hstu import l2_normalised
from movielens import MAX_LENGTH
from ranking.data import TASKS, Stream, UserEvents, merge_actions
from ranking.evaluate import gather, metrics, predict, shown
from ranking.learner import Batch, Learner, TrainingConfig, Window, collate, start_from_co_ratings

WARM_UP_STEPS = 60
TASK_WEIGHTS = torch.tensor([1.0, 1.0, 1.0])
Report = Callable[[str], None]


def sample_windows(users: list[UserEvents], before: int, random: np.random.Generator, merge: float, since: int = 0) -> list[Window]:
    """
    Windows over everybody's events before a place of the stream, each with all of its events as targets that are not before `since`.
    One begins at the user's first event, as serving does; the others at a drawn one, so that a target of a long history is met with
    0 to 199 events before it (the reference's sampled sequence lengths).
    """
    windows = []
    for user in users:
        user = merge_actions(user, random.random(len(user) - 1) < merge) if merge > 0 else user
        end, begin = int((user.order < before).sum()), int((user.order < since).sum())
        if begin == end:
            continue
        start = max(0, begin - int(random.integers(0, MAX_LENGTH // 2)))
        if begin == 0:
            windows.append((user, 0, 0, min(end, MAX_LENGTH)))
            start = int(random.integers(1, MAX_LENGTH))
        while start < end - 1 and (end > MAX_LENGTH or begin > 0):
            last = min(end, start + MAX_LENGTH)
            if last > begin:
                windows.append((user, start, max(start, begin), last))
            start = last
    return windows


def batches(windows: list[Window], size: int, random: np.random.Generator) -> list[list[Window]]:
    """Shuffled batches of windows of about one length each."""
    order = random.permutation(len(windows))
    made = []
    for first in range(0, len(order), size * 8):
        alike = sorted((windows[index] for index in order[first : first + size * 8]), key=lambda window: window[3] - window[1])
        made += [alike[start : start + size] for start in range(0, len(alike), size)]
    return [made[index] for index in random.permutation(len(made))]


def batch_loss(learner: Learner, batch: Batch, now: Tensor) -> tuple[Tensor, Tensor]:
    """The loss and the tasks' log losses [K]. now: statistics of all items [V+2, S], for retrieval's negatives."""
    config = learner.config
    length = batch.ids.shape[1]
    unknown = learner.drawn_unknown()
    entities = learner.rows(batch.ids, batch.statistics, unknown)
    positions, again = torch.arange(length).expand_as(batch.ids), drawn_again(batch.valid, config.again)
    asked = torch.cat([entities, entities.gather(1, again[1][..., None].expand(-1, -1, entities.shape[-1]))], 1)
    history, targets = learner.model(batch.history, entities[:, :-1], asked, torch.cat([positions, again[0]], 1))
    logits, has = learner.model.logits(targets), ~batch.labels.isnan()
    losses = F.binary_cross_entropy_with_logits(logits[:, :length], batch.labels.nan_to_num(), reduction="none")
    by_task = (losses * has).sum((0, 1)) / has.sum((0, 1)).clamp(min=1)
    loss = (by_task * TASK_WEIGHTS).sum()
    if config.again > 0:
        loss = loss + config.again_weight * (F.softplus(-logits[:, length:, TASKS.index("tag")]) * (again[0] > 0)).mean()
    if config.retrieval_weight > 0:
        loss = loss + config.retrieval_weight * retrieval_loss(learner, batch, history, now, unknown)
    return loss, by_task.detach()


def drawn_again(valid: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """[B, count] positions, and for each the place of an event before it; position 0, which has none, where a window is one event."""
    lengths = valid.sum(1, keepdim=True)
    positions = (torch.rand(len(valid), count) * (lengths - 1)).long() + (lengths > 1)
    return positions, (torch.rand(positions.shape) * positions).long()


def retrieval_loss(learner: Learner, batch: Batch, history: Tensor, now: Tensor, unknown: Tensor) -> Tensor:
    """Sampled softmax of the next rated item against drawn ones, as train.py has it for the research model."""
    config = learner.config
    rated = batch.valid[:, 1:] & ~batch.labels[:, 1:, TASKS.index("like")].isnan()
    rows = l2_normalised(history[rated]) / config.temperature
    targets = batch.ids[:, 1:][rated]
    drawn = torch.randint(1, learner.unknown_row, (config.negatives,))
    positive = (rows * l2_normalised(learner.rows(targets, now[targets], unknown))).sum(-1)
    negative = rows @ l2_normalised(learner.rows(drawn, now[drawn], unknown)).T
    negative = negative.masked_fill(drawn[None] == targets[:, None], -1e4)
    return (torch.logaddexp(positive, negative.logsumexp(-1)) - positive).mean()


class Trainer:
    """A learner, the running mean of its weights, and the optimiser: what a streaming loop carries from block to block."""

    def __init__(self, config: TrainingConfig, stream: Stream, before: int):
        torch.manual_seed(config.seed)
        self.random = np.random.default_rng(config.seed)
        self.config, self.stream = config, stream
        self.learner = Learner(config, stream)
        start_from_co_ratings(self.learner, [upto(user, before) for user in stream.users], len(stream.years) - 1)
        learner = self.learner
        rest = [parameter for parameter in learner.parameters() if parameter is not learner.free]
        self.optimiser = torch.optim.AdamW(
            [{"params": [learner.free], "lr": config.table_learning_rate}, {"params": rest, "lr": config.learning_rate}],
            betas=(0.9, 0.98),
            weight_decay=config.weight_decay,
        )
        self.warm_up = torch.optim.lr_scheduler.LambdaLR(self.optimiser, lambda step: min(1, (step + 1) / WARM_UP_STEPS))
        self.averaged = copy.deepcopy(learner)
        self.steps = 0

    def epoch(self, windows: list[Window], statistics: np.ndarray) -> Tensor:
        """One pass; the tasks' mean log losses."""
        self.learner.train()
        now = torch.from_numpy(np.concatenate([statistics, np.zeros_like(statistics[:1])]))
        seen = []
        for batch in batches(windows, self.config.batch_windows, self.random):
            loss, by_task = batch_loss(self.learner, collate(batch), now)
            self.optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(self.learner.parameters(), 1.0)
            self.optimiser.step()
            self.warm_up.step()
            self.steps += 1
            decay = min(self.config.average, (self.steps + 1) / (self.steps + 10))
            with torch.no_grad():
                for mean, current in zip(self.averaged.parameters(), self.learner.parameters()):
                    mean.lerp_(current, 1 - decay)
            seen.append(by_task)
        return torch.stack(seen).mean(0)


def upto(user: UserEvents, before: int) -> UserEvents:
    """The user's events before a place of the stream."""
    kept = user.order < before
    return UserEvents(user.user, *(getattr(user, name)[kept] for name in list(UserEvents.__dataclass_fields__)[1:]))


def train(config: TrainingConfig, stream: Stream, before: int, validate: tuple[int, int] | None, report: Report) -> tuple[Trainer, int]:
    """
    Trains on the events before a place. With `validate` = (first, last) places it stops early on them and says the best epoch; without,
    it runs config.epochs.
    """
    trainer = Trainer(config, stream, before)
    statistics = stream.snapshots[before]
    best, best_epoch, began = np.inf, 0, time.monotonic()
    for epoch in range(1, config.epochs + 1):
        losses = trainer.epoch(sample_windows(stream.users, before, trainer.random, config.merge), statistics)
        line = f"epoch {epoch}: loss " + " ".join(f"{task} {loss:.4f}" for task, loss in zip(TASKS, losses.tolist()))
        if validate is not None:
            wanted = lambda user: (user.order >= validate[0]) & (user.order < validate[1])
            result = metrics(gather(stream.users, wanted, "labels"), predict(trainer.averaged, statistics, stream.users, wanted))
            line += f" | {shown(result)}"
            quality = result["like"]["NE"] + result["love"]["NE"] + 0.25 * result["tag"]["NE"]
            if quality < best:
                best, best_epoch = quality, epoch
        report(f"{line} | {time.monotonic() - began:.0f} s")
        if validate is not None and epoch - best_epoch >= config.patience:
            break
    return trainer, best_epoch if validate is not None else config.epochs
