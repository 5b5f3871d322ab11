"""Train on block t, evaluate on block t + 1, as the reference's streaming loop does; a bundle after every block."""

import copy
import time
from pathlib import Path

import numpy as np

from ranking.baselines import logistic_on_counts
from ranking.data import Stream
from ranking.evaluate import gather, metrics, predict, shown
from ranking.export import Frozen, write_ranking_bundle
from ranking.train import Report, Trainer, sample_windows

BLOCK_EPOCHS = 2
REPLAYED = 0.25
"""Share of older windows that a block's passes go over again, so that what is old is not unlearned."""


def vocabulary_at(stream: Stream, place: int) -> int:
    """Rows of the catalogue in the year of the event at a place: rows are in order of release, so a later vocabulary begins with this one."""
    times = np.concatenate([user.times[user.order == min(place, stream.length - 1)] for user in stream.users])
    year = time.gmtime(int(times[0])).tm_year
    return int((stream.years[1:] <= year).sum())


def stream_blocks(trainer: Trainer, stream: Stream, places: list[int], folder: Path, report: Report) -> list[dict]:
    """
    places: the edges of the blocks; the trainer knows everything before the first. Each block is predicted by the bundle of the moment
    it begins (a movie of a later year is out of its vocabulary), by the first bundle of all, and by a logistic regression on counts that
    is fitted anew; then it is trained on.
    """
    frozen_learner, first_statistics, first_vocabulary = copy.deepcopy(trainer.averaged), stream.snapshots[places[0]], vocabulary_at(stream, places[0])
    curve = []
    for block, (begin, end) in enumerate(zip(places[:-1], places[1:])):
        vocabulary = vocabulary_at(stream, begin)
        bundle = Frozen.of(trainer.averaged, stream, stream.snapshots[begin], vocabulary)
        where = folder / f"block-{block}"
        write_ranking_bundle(where, bundle, f"movielens-small-ranking-{block}", trainer.config.retrieval_weight > 0, {"eventsBefore": begin})
        wanted = lambda user: (user.order >= begin) & (user.order < end)
        labels = gather(stream.users, wanted, "labels")
        row = {
            "block": block,
            "events": end - begin,
            "vocabulary": vocabulary,
            "streamed": metrics(labels, predict(trainer.averaged, stream.snapshots[begin], stream.users, wanted, vocabulary)),
            "frozen": metrics(labels, predict(frozen_learner, first_statistics, stream.users, wanted, first_vocabulary)),
            "counts": metrics(labels, logistic_on_counts(stream, begin, wanted, live=False, recent=True)),
        }
        curve.append(row)
        for method in ("streamed", "frozen", "counts"):
            report(f"block {block} ({end - begin} events, {vocabulary} entities), {method}: {shown(row[method])}")
        if end == places[-1]:
            break
        for epoch in range(BLOCK_EPOCHS):
            new = sample_windows(stream.users, end, trainer.random, trainer.config.merge, since=begin)
            old = sample_windows(stream.users, begin, trainer.random, trainer.config.merge)
            kept = trainer.random.permutation(len(old))[: int(REPLAYED * len(old))]
            losses = trainer.epoch(new + [old[i] for i in kept], stream.snapshots[end])
            report(f"trained on block {block}, pass {epoch + 1}: {len(new)} new windows, {len(kept)} old, log losses {losses.tolist()}")
    return curve


def markdown(curve: list[dict], task: str) -> str:
    lines = ["| block | events | vocabulary | streamed AUC | NE | first bundle AUC | NE | counts AUC | NE |", "| --- |" + " --- |" * 8]
    for row in curve:
        cells = [f"{row[method][task][metric]:.4f}" for method in ("streamed", "frozen", "counts") for metric in ("AUC", "NE")]
        lines.append(f"| {row['block'] + 1} | {row['events']} | {row['vocabulary']} | " + " | ".join(cells) + " |")
    return "\n".join(lines)
