"""How well the same bundle retrieves, the first stage of two: python -m ranking.retrieval [FOLDER], from the folder models/training."""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

from evaluate import metrics
from hstu import l2_normalised
from ranking.data import RATING, UserEvents, read_stream
from ranking.evaluate import serving_windows
from ranking.learner import collate
from ranking.stu import Stu, StuConfig

EXAMPLE = Path(__file__).resolve().parents[3] / "examples" / "movielens"


def load_ranking(folder: Path) -> tuple[Stu, torch.Tensor, dict]:
    """The model of a bundle, its entity table [1 + V + 1, D] and its configuration."""
    config = json.loads((folder / "config.json").read_text())
    state = {name.removeprefix("ranking."): part for name, part in load_file(folder / "model.safetensors").items()}
    table = state.pop("entity_embedding")
    model = Stu(
        StuConfig(
            padded_length=config["paddedLength"],
            tasks=len(config["ranking"]["tasks"]),
            actions=len(config["actions"]["encoded"]),
            value_buckets=len(state["value_embedding"]),
            divisor=config["stu"]["divisor"],
            hidden=config["ranking"]["hidden"],
            **{name: config[name] for name in ("dimension", "layers", "heads", "dqk", "dv")},
        )
    )
    model.load_state_dict(state)
    return model.eval(), table, config


def ranks(score: np.ndarray, user: UserEvents, places: np.ndarray) -> np.ndarray:
    """Rank of each place's movie in its row of scores [places, V+1], what the user has met before left out; ties share the mean rank."""
    score[:, 0] = -np.inf
    for row, place in enumerate(places):
        score[row, user.entities[:place]] = -np.inf
    own = np.take_along_axis(score, user.entities[places, None], 1)
    return 1 + (score > own).sum(1) + ((score == own).sum(1) - 1) / 2


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    model, table, config = load_ranking(folder)
    events = config["training"]["events"]
    stream = read_stream(EXAMPLE / "data", lambda _: {events["cut"]})
    popular = stream.snapshots[events["cut"]][:, 3]
    normal = l2_normalised(table[:-1])
    ours, theirs = [], []
    for user in stream.users:
        for window in serving_windows(user, user.order >= events["cut"]):
            _, start, first, last = window
            batch = collate([window])
            # Only what is rated for the first time, and after something: a row is needed to ask from.
            new = [i for i in range(max(first, 1), last) if user.bits[i] == RATING and user.entities[i] not in user.entities[:i]]
            if not new or last - start < 2:
                continue
            with torch.no_grad():
                positions = torch.zeros(1, 1, dtype=torch.int64)
                rows, _ = model(batch.history, table[batch.ids[:, :-1]], table[batch.ids[:, :1]], positions)
            at = np.array([i for i in new if i - 1 >= start])
            ours.append(ranks((rows[0, at - 1 - start] @ normal.T).numpy(), user, at))
            theirs.append(ranks(np.tile(popular, (len(at), 1)), user, at))
    for method, found in (("this bundle", ours), ("popularity", theirs)):
        found = np.concatenate(found)
        print(f"{method}: " + ", ".join(f"{name} {value:.4f}" for name, value in metrics(found).items()) + f", {len(found)} events after the cut")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else EXAMPLE / "ranking")
