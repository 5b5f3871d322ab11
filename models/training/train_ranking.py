"""Trains, measures and exports the ranking bundle: python train_ranking.py (train-ranking.sh prepares the environment)."""

import argparse
import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch

from ranking import report as tables
from ranking import streaming
from ranking.data import TASKS, read_stream
from ranking.evaluate import check_no_future
from ranking.export import Frozen, write_check, write_ranking_bundle
from ranking.learner import TrainingConfig
from ranking.train import train

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "movielens"
STREAMED = Path(__file__).resolve().parents[2] / ".hstu" / "ranking-blocks"
FIT, CUT = 0.7, 0.8
"""Shares of the stream: learned from while the epoch is chosen on what lies between; then everything before CUT is learned from."""
BLOCKS = 4
SMOKE_USERS = 80
SMOKE = TrainingConfig(dimension=16, identity=8, heads=2, hidden=8, epochs=2, negatives=64)


def main() -> None:
    options = parse()
    torch.set_num_threads(1)  # sums then run in one order, and one busy core is the fair share of a shared machine
    config = SMOKE if options.smoke else TrainingConfig()
    say = lambda line: print(line, flush=True)
    edges = lambda length: {round(length * share) for share in (FIT, *(CUT + (1 - CUT) * block / BLOCKS for block in range(BLOCKS)))}
    stream = read_stream(EXAMPLE / "data", edges, SMOKE_USERS if options.smoke else None)
    fit, cut = round(stream.length * FIT), round(stream.length * CUT)
    say(f"{stream.length} events of {len(stream.users)} users, {len(stream.years) - 1} movies; learn from {fit}, choose the epoch on {cut - fit}")
    _, epoch = train(config, stream, fit, (fit, cut), say)
    say(f"best epoch {epoch}; learn from all {cut} events before the cut")
    trainer, _ = train(replace(config, epochs=epoch), stream, cut, None, say)
    say(f"no prediction sees what comes after it: worst difference {check_no_future(trainer.averaged, stream.snapshots[cut], stream.users):.1e}")
    table = tables.compare(trainer.averaged, stream, cut, stream.length, EXAMPLE / "bundle", say)
    for group in table:
        say(f"\n{group}\n\n{tables.markdown(table, group)}")

    training = {
        "dataset": "ml-latest-small",
        "command": "bash models/training/train-ranking.sh",
        "torch": torch.__version__,
        "events": {"fit": fit, "cut": cut, "all": stream.length},
        "cutTime": int(min(user.times[user.order == cut][0] for user in stream.users if (user.order == cut).any())),
        "epochs": epoch,
        "hyperparameters": asdict(config),
        "metrics": tables.rounded(table),
    }
    bundle = Frozen.of(trainer.averaged, stream, stream.snapshots[cut])
    write_ranking_bundle(options.out, bundle, "movielens-small-ranking", config.retrieval_weight > 0, training)
    write_check(options.out / "bundle-check.json", bundle, stream.users, np.random.default_rng(config.seed))
    say(f"\nwrote {options.out}")
    if options.stream is not None:
        places = [round(stream.length * (CUT + (1 - CUT) * block / BLOCKS)) for block in range(BLOCKS + 1)]
        curve = streaming.stream_blocks(trainer, stream, places, options.stream, say)
        (options.stream / "curve.json").write_text(json.dumps(curve) + "\n")
        for task in TASKS:
            say(f"\n{task}, block by block\n\n{streaming.markdown(curve, task)}")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="a toy model of a few users, two epochs: does every step run?")
    parser.add_argument("--stream", nargs="?", type=Path, const=STREAMED, help="then train block by block, a bundle each, into this folder")
    parser.add_argument("--out", type=Path, default=EXAMPLE / "ranking", help="folder of the bundle")
    options = parser.parse_args()
    if options.smoke and options.out == EXAMPLE / "ranking":
        parser.error("--smoke needs --out: a toy must not replace the example's bundle")
    return options


if __name__ == "__main__":
    main()
