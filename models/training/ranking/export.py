"""Writes what the runtime loads: the bundle, and beside it the scores that the runtime must reproduce."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from hstu import l2_normalised
from movielens import BLOCK_LENGTH, MAX_LENGTH, window_start
from ranking.data import ACTIONS, TASKS, VALUE_EDGES, Stream, UserEvents, merge_actions, popularity_of
from ranking.learner import Learner
from ranking.stu import History, Stu
from time_buckets import time_bucket_thresholds

COMBINED = {"like": 1.0, "love": 1.0, "tag": 0.25}
"""Weights of the tasks in the combined score."""
FILES = ("config.json", "model.safetensors", "entities.txt", "bundle-check.json")
_DECIMALS = 9


@dataclass(frozen=True)
class Frozen:
    """A learner as of a place of the stream: its table folded, its vocabulary cut to what is released by then."""

    model: Stu
    table: torch.Tensor
    """[1 + V + 1, D]"""
    entities: list[str]
    popularity: np.ndarray
    """[V] by row from 1, as of then: what a user without a history is given."""

    @staticmethod
    def of(learner: Learner, stream: Stream, statistics: np.ndarray, vocabulary_size: int | None = None) -> "Frozen":
        with torch.no_grad():
            table = learner.table(statistics)
        entities = stream.catalogue.entity_ids()
        if vocabulary_size is not None:
            table, entities = torch.cat([table[: 1 + vocabulary_size], table[-1:]]), entities[:vocabulary_size]
        return Frozen(learner.model.eval(), table, entities, popularity_of(statistics)[1 : 1 + len(entities)])


def bundle_tensors(frozen: Frozen) -> dict[str, torch.Tensor]:
    model = frozen.model
    tensors = {
        "entity_embedding": frozen.table,
        "action_embedding": model.action_embedding,
        "value_embedding": model.value_embedding,
        "position_embedding": model.position_embedding,
        "popularity": torch.from_numpy(frozen.popularity),
        "ranking.hidden_weight": model.hidden_weight,
        "ranking.hidden_bias": model.hidden_bias,
        "ranking.weight": model.weight,
        "ranking.bias": model.bias,
    }
    for index, layer in enumerate(model.layers):
        tensors |= {f"layers.{index}.{name}": parameter for name, parameter in layer.named_parameters()}
    return {name: tensor.detach().to(torch.float32).contiguous() for name, tensor in tensors.items()}


def bundle_config(frozen: Frozen, name: str, retrieval: bool, training: dict) -> dict:
    c = frozen.model.config
    return {
        "format": "hstu-bundle/1",
        "name": name,
        "architecture": "hstu-stu",
        "dimension": c.dimension,
        "layers": c.layers,
        "heads": c.heads,
        "dqk": c.dqk,
        "dv": c.dv,
        "vocabularySize": len(frozen.entities),
        "maxSequenceLength": MAX_LENGTH,
        "paddedLength": c.padded_length,
        "positions": "from-start",
        "tokenTime": "none",
        "divisor": "constant",
        "normalization": "per-token",
        "attention": "causal",
        "timeBias": True,
        "positionBias": True,
        "concatUa": True,
        "outputNorm": "layernorm",
        "timeBucketThresholds": time_bucket_thresholds(),
        "window": {"maxLength": MAX_LENGTH, "blockLength": BLOCK_LENGTH},
        "actions": {"encoded": list(ACTIONS), "skipped": []},
        "unknownEntity": "hash",
        "outOfVocabulary": 1,
        "tokens": {"layout": "additive", "values": {"rating": VALUE_EDGES}},
        "stu": {"divisor": c.divisor, "alpha": c.alpha, "groupNorm": False, "maxAttnLen": None, "embeddingScale": c.embedding_scale},
        "ranking": {"tasks": [{"name": task, "weight": COMBINED[task]} for task in TASKS], "hidden": c.hidden},
        "retrieval": retrieval,
        "popularity": True,
        "training": training,
    }


def write_ranking_bundle(folder: Path, frozen: Frozen, name: str, retrieval: bool, training: dict) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "entities.txt").write_text("".join(f"{entity}\n" for entity in frozen.entities), encoding="utf-8")
    save_file(bundle_tensors(frozen), folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(bundle_config(frozen, name, retrieval, training), indent=2) + "\n", encoding="utf-8")


def action_of(user: UserEvents, i: int, entities: list[str]) -> dict:
    """One event as the stream brings it."""
    kinds = [kind for a, kind in enumerate(ACTIONS) if int(user.bits[i]) >> a & 1]
    action = {"action": "+".join(kinds), "entity": entities[user.entities[i] - 1], "timeS": int(user.times[i])}
    return action | ({"value": user.buckets[i] / 2} if user.buckets[i] > 0 else {})


def check_case(frozen: Frozen, user: UserEvents, events: int, candidates: list[int], query_time: int) -> dict:
    """Scores of candidates (table rows) for the first `events` of a user, in float64 on the bundle's float32 tensors."""
    start = window_start(events)
    own = slice(start, events)
    history = History(
        torch.from_numpy(user.bits[None, own]),
        torch.from_numpy(user.buckets[None, own]),
        torch.from_numpy(np.append(user.times[own], query_time)[None]),
    )
    table = frozen.table.double()
    positions = torch.full((1, len(candidates)), events - start)
    with torch.no_grad():
        rows, targets = frozen.model(history, table[torch.from_numpy(user.entities[None, own])], table[torch.tensor([candidates])], positions)
        probabilities = torch.sigmoid(frozen.model.logits(targets[0]))
        top = (rows[0, -1] @ l2_normalised(table[1 : 1 + len(frozen.entities)]).T).topk(10) if events > 0 else None
    weights = torch.tensor([COMBINED[task] for task in TASKS], dtype=torch.float64)
    rounded = lambda values: [round(value, _DECIMALS) for value in values.tolist()]
    return {
        "user": user.user,
        "windowStart": start,
        "events": [action_of(user, i, frozen.entities) for i in range(start, events)],
        "queryTimeS": query_time,
        "candidates": [frozen.entities[row - 1] if row <= len(frozen.entities) else "movie:never-heard-of" for row in candidates],
        "tasks": {task: rounded(probabilities[:, k]) for k, task in enumerate(TASKS)},
        "combined": rounded(probabilities @ weights),
        "top10": [] if top is None else [frozen.entities[i] for i in top.indices.tolist()],
        "top10Scores": [] if top is None else rounded(top.values),
    }


def write_check(file: Path, frozen: Frozen, users: list[UserEvents], random: np.random.Generator) -> None:
    """
    A full window, one just slid, a short history, one without any, and one with several actions a token; each asks for what it did
    next, items of its own history, others, and one outside the vocabulary.
    """
    frozen.model.double()
    by_length = sorted(users, key=lambda user: (-len(user), user.user))
    tagged = [merged for user in by_length if len(merged := merge_actions(user, np.ones(len(user) - 1, bool))) < len(user)]
    chosen = [(by_length[0], min(len(by_length[0]) - 1, MAX_LENGTH)), (by_length[min(1, len(by_length) - 1)], MAX_LENGTH + 1)]
    chosen += [(by_length[len(by_length) // 2], 7), (by_length[-1], 0)] + [(user, min(len(user) - 1, 60)) for user in tagged[:1]]
    cases = []
    for user, events in chosen:
        events = min(events, len(user) - 1)
        others = random.integers(1, len(frozen.entities) + 1, 12).tolist()
        candidates = [int(user.entities[events]), *user.entities[max(0, events - 3) : events].tolist(), *others, len(frozen.entities) + 1]
        cases.append(check_case(frozen, user, events, candidates, int(user.times[events])))
    frozen.model.float()
    file.write_text(json.dumps({"cases": cases}, separators=(",", ":")) + "\n", encoding="utf-8")
