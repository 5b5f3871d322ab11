"""How well the same bundle retrieves, the first stage of two, beside the retrieval bundle: python -m ranking.retrieval [FOLDER], from models/training."""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

from evaluate import metrics
from hstu import l2_normalised
from movielens import window_start
from ranking.baselines import load_retrieval
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
    state.pop("popularity", None)
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


class RetrievalBundle:
    """The example of one stage, over the ratings alone, in the rows of a stream's catalogue."""

    def __init__(self, folder: Path, entities: list[str]):
        self.model, row_of = load_retrieval(folder)
        self.row_by_ours = np.array([0, *(row_of[entity] for entity in entities)])
        with torch.no_grad():
            self.table = l2_normalised(self.model.entities())[torch.from_numpy(self.row_by_ours)]
        self.unseen = set(json.loads((folder / "config.json").read_text())["training"]["unseenUsers"])

    def scores(self, user: UserEvents, places: np.ndarray) -> np.ndarray:
        """[places, V+1], each place asked with the ratings before it, at its own time."""
        rated = (user.bits & RATING) > 0
        before = (np.cumsum(rated) - rated)[places]
        ids, times = self.row_by_ours[user.entities[rated]], user.times[rated]
        scores = np.zeros((len(places), len(self.table)), np.float32)
        starts = np.array([window_start(int(count)) for count in before])
        for start in np.unique(starts):
            at = np.flatnonzero((starts == start) & (before > 0))
            if len(at) == 0:
                continue
            last = int(before[at].max())
            asked = times[start : last + 1] if last < len(times) else np.append(times[start:last], user.times[places[at[-1]]])
            with torch.no_grad():
                rows = self.model(torch.from_numpy(ids[None, start:last]), torch.from_numpy(asked[None]))[0]
                scores[at] = (rows[torch.from_numpy(before[at] - 1 - start)] @ self.table.T).numpy()
        return scores


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    model, table, config = load_ranking(folder)
    events = config["training"]["events"]
    stream = read_stream(EXAMPLE / "data", lambda _: {events["cut"]})
    popular = stream.snapshots[events["cut"]][:, 3]
    normal = l2_normalised(table[:-1])
    single = RetrievalBundle(EXAMPLE / "bundle", stream.catalogue.entity_ids())
    found = {method: [] for method in ("this bundle", "the retrieval bundle", "popularity")}
    unseen = []
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
            found["this bundle"].append(ranks((rows[0, at - 1 - start] @ normal.T).numpy(), user, at))
            found["the retrieval bundle"].append(ranks(single.scores(user, at), user, at))
            found["popularity"].append(ranks(np.tile(popular, (len(at), 1)), user, at))
            unseen.append(np.full(len(at), user.user in single.unseen))
    chosen = np.concatenate(unseen)
    for title, events in (("all users", np.ones_like(chosen)), ("users that the retrieval bundle never saw", chosen)):
        print(f"{title}, {events.sum()} events after the cut")
        for method, parts in found.items():
            print(f"  {method}: " + ", ".join(f"{name} {value:.4f}" for name, value in metrics(np.concatenate(parts)[events]).items()))


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else EXAMPLE / "ranking")
