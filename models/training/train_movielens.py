"""Trains, measures and exports the MovieLens bundle: python train_movielens.py (train-movielens.sh prepares the environment)."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from evaluate import (
    FIRST_EVENT,
    Scores,
    co_rating_scores,
    co_rating_similarity,
    evaluate,
    hstu_scores,
    item_counts,
    nearby_co_rating_similarity,
    popularity_scores,
)
from export import write_bundle, write_parity_fixture
from movielens import History, Split, read_catalogue, read_histories, split_by_user
from train import TrainingConfig, shown, train

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "movielens"
SEED = 1
EARLY_STOPPING_USERS = 50
CONFIG = TrainingConfig(seed=SEED)
POPULARITY_POWERS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6)
LAST_ITEMS = (1, 2, 3, 4, 5, 7, 10, 20)

Similarity = Callable[[list[History], int, float], np.ndarray]


def best_co_rating(split: Split, vocabulary_size: int, similarity_of: Similarity) -> tuple[Scores, dict]:
    """The item-to-item baseline whose normalisation and k do best by NDCG@10 on the early-stopping users."""
    counts = item_counts(split.fit, vocabulary_size)
    best = -1.0, None, {}
    for power in POPULARITY_POWERS:
        similarity = similarity_of(split.fit, vocabulary_size, power)
        for last_items in LAST_ITEMS:
            scores = co_rating_scores(similarity, counts, last_items)
            result = evaluate(scores, split.early_stopping)
            if result["NDCG@10"] > best[0]:
                best = result["NDCG@10"], scores, {"popularityPower": power, "lastItems": last_items, "earlyStopping": rounded(result)}
    return best[1], best[2]


def main() -> None:
    torch.set_num_threads(1)  # sums then run in one order, and one busy core is the fair share of a shared machine
    catalogue = read_catalogue(EXAMPLE / "data")
    split = split_by_user(read_histories(EXAMPLE / "data", catalogue), SEED, EARLY_STOPPING_USERS)
    size = len(catalogue.movie_ids)
    co_rating, co_rating_options = best_co_rating(split, size, co_rating_similarity)
    nearby, nearby_options = best_co_rating(split, size, nearby_co_rating_similarity)
    print(f"co-rating: {co_rating_options}; nearby co-rating: {nearby_options}", flush=True)
    model, epoch = train(CONFIG, catalogue, split, lambda line: print(line, flush=True))

    methods = {
        "hstu": hstu_scores(model),
        "nearbyCoRating": nearby,
        "coRating": co_rating,
        "popularity": popularity_scores(split.fit, size),
    }
    table = {}
    for name, filter_seen in (("seenFiltered", True), ("unfiltered", False)):
        table[name] = {method: rounded(evaluate(scores, split.unseen, filter_seen)) for method, scores in methods.items()}
        for method, result in table[name].items():
            print(f"unseen users, {name}, {method}: {shown(result)}", flush=True)

    training = {
        "dataset": "ml-latest-small",
        "seed": SEED,
        "command": "bash models/training/train-movielens.sh",
        "torch": torch.__version__,
        "users": {"fit": len(split.fit), "earlyStopping": len(split.early_stopping), "unseen": len(split.unseen)},
        "unseenUsers": sorted((user.user for user in split.unseen), key=int),
        "earlyStoppingUsers": sorted((user.user for user in split.early_stopping), key=int),
        "bestEpoch": epoch,
        "hyperparameters": asdict(CONFIG),
        "baselines": {"coRating": co_rating_options, "nearbyCoRating": nearby_options},
        "evaluatedEvents": sum(len(user) - FIRST_EVENT for user in split.unseen),
        "metrics": table,
    }
    write_bundle(EXAMPLE / "bundle", model, catalogue, item_counts(split.fit, size)[1:], training)
    write_parity_fixture(EXAMPLE / "bundle-check.json", model, split.unseen)


def rounded(result: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 4) for name, value in result.items()}


if __name__ == "__main__":
    main()
