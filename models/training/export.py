"""Writes what the runtime loads: the bundle (entities, tensors, config) and the parity fixture beside it."""

import json
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from hstu import Hstu, l2_normalised
from movielens import BLOCK_LENGTH, MAX_LENGTH, Catalogue, History, window_start
from time_buckets import time_bucket_thresholds

_DECIMALS = 12


def bundle_tensors(model: Hstu, popularity: np.ndarray) -> dict[str, torch.Tensor]:
    tensors = {"entity_embedding": model.entities(), "position_embedding": model.position_embedding, "popularity": torch.from_numpy(popularity)}
    for index, layer in enumerate(model.layers):
        name = f"layers.{index}."
        tensors[name + "uvqk"] = layer.uvqk
        tensors[name + "time_bias"] = layer.time_bias
        tensors[name + "position_bias"] = layer.position_bias
        tensors[name + "output_weight"] = layer.output.weight.T  # so that x = y @ output_weight + output_bias
        tensors[name + "output_bias"] = layer.output.bias
    return {name: tensor.detach().to(torch.float32).contiguous() for name, tensor in tensors.items()}


def bundle_config(model: Hstu, training: dict) -> dict:
    c = model.config
    return {
        "format": "hstu-bundle/1",
        "name": "movielens-small-hstu",
        "architecture": "hstu-research",
        "dimension": c.dimension,
        "layers": c.layers,
        "heads": c.heads,
        "dqk": c.dqk,
        "dv": c.dv,
        "vocabularySize": c.vocabulary_size,
        "maxSequenceLength": MAX_LENGTH,
        "paddedLength": c.padded_length,
        "positions": "from-start",
        "tokenTime": "none",
        "divisor": "constant",
        "normalization": "per-token",
        "attention": "causal",
        "timeBias": True,
        "positionBias": True,
        "concatUa": False,
        "outputNorm": "l2",
        "timeBucketThresholds": time_bucket_thresholds(),
        "window": {"maxLength": MAX_LENGTH, "blockLength": BLOCK_LENGTH},
        "actions": {"encoded": ["rating"], "skipped": ["tag"]},
        "unknownEntity": "dead-letter",
        "popularity": True,
        "training": training,
    }


def write_bundle(folder: Path, model: Hstu, catalogue: Catalogue, popularity: np.ndarray, training: dict) -> None:
    """popularity: [V] of each entity, in any unit: what a user without a history is given."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "entities.txt").write_text("".join(f"{entity}\n" for entity in catalogue.entity_ids()), encoding="utf-8")
    save_file(bundle_tensors(model, popularity), folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(bundle_config(model, training), indent=2) + "\n", encoding="utf-8")


def parity_cases(model: Hstu, users: list[History]) -> list[dict]:
    """
    Five unseen users and the float64 rows that the runtime must reproduce: a full window of 200 events, one that has just slid, then
    three shorter ones. Each is asked at its next event's time, the last one (all its events are used) at its newest event's.
    """
    by_length = sorted(users, key=lambda user: (-len(user), user.user))
    shorter = [user for user in by_length if len(user) < MAX_LENGTH // 2]
    chosen = [(by_length[0], MAX_LENGTH), (by_length[1], MAX_LENGTH + 1)]
    chosen += [(shorter[0], len(shorter[0]) - 1), (shorter[len(shorter) // 2], 7), (shorter[-1], len(shorter[-1]))]
    precise = model.double().eval()
    cases = []
    for user, events in chosen:
        start = window_start(events)
        ids, times = user.ids[start:events].tolist(), user.times[start:events].tolist()
        query_time = int(user.times[min(events, len(user) - 1)])
        with torch.no_grad():
            rows = precise(torch.tensor([ids]), torch.tensor([[*times, query_time]]))[0]
            top = (rows[-1] @ l2_normalised(precise.entities()[1:]).T).topk(10)
        cases.append(
            {
                "user": user.user,
                "ids": ids,
                "timestamps": times,
                "queryTime": query_time,
                "rows": [[round(value, _DECIMALS) for value in row] for row in rows.tolist()],
                "top10": (top.indices + 1).tolist(),
                "top10Scores": [round(value, _DECIMALS) for value in top.values.tolist()],
            }
        )
    model.float()
    return cases


def write_parity_fixture(file: Path, model: Hstu, users: list[History]) -> None:
    """Float64 arithmetic on the float32 tensors of the bundle, so only the runtime's own rounding is left to differ."""
    c = model.config
    config = {
        "max_item_id": c.vocabulary_size,
        "max_sequence_length": MAX_LENGTH,
        "gr_output_length": c.padded_length - MAX_LENGTH - 1,
        "item_embedding_dim": c.dimension,
        "num_blocks": c.layers,
        "num_heads": c.heads,
        "dqk": c.dqk,
        "dv": c.dv,
        "N": c.padded_length,
    }
    text = json.dumps({"model": "movielens-small-hstu", "config": config, "cases": parity_cases(model, users)}, separators=(",", ":"))
    file.write_text(text + "\n", encoding="utf-8")
