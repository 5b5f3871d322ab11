"""Compares this model with golden vectors made by the reference's own modules: python check_golden.py FOLDER (research-*.json inside)."""

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file

from hstu import Hstu, HstuConfig, l2_normalised

TOLERANCE = 1e-6


def load_reference(state: dict[str, torch.Tensor], config: dict) -> Hstu:
    """A float64 model from a state dict with the reference's names."""
    model = Hstu(
        HstuConfig(
            vocabulary_size=config["max_item_id"],
            padded_length=config["N"],
            dimension=config["item_embedding_dim"],
            layers=config["num_blocks"],
            heads=config["num_heads"],
            dqk=config["dqk"],
            dv=config["dv"],
        )
    )
    renamed = {
        "entity_embedding": state["_embedding_module._item_emb.weight"],
        "position_embedding": state["_input_features_preproc._pos_emb.weight"],
    }
    for index in range(config["num_blocks"]):
        theirs, ours = f"_hstu._attention_layers.{index}.", f"layers.{index}."
        renamed[ours + "uvqk"] = state[theirs + "_uvqk"]
        renamed[ours + "time_bias"] = state[theirs + "_rel_attn_bias._ts_w"]
        renamed[ours + "position_bias"] = state[theirs + "_rel_attn_bias._pos_w"]
        renamed[ours + "output.weight"] = state[theirs + "_o.weight"]
        renamed[ours + "output.bias"] = state[theirs + "_o.bias"]
    model.load_state_dict(renamed)
    return model.double().eval()


def worst_difference(model: Hstu, case: dict) -> float:
    ids = torch.tensor([case["ids"]])
    times = torch.tensor([[*case["timestamps"], case["queryTime"]]])
    with torch.no_grad():
        rows = model(ids, times)[0]
        scores = rows[-1] @ l2_normalised(model.entities()[1:]).T
    top = scores.topk(len(case["top10"]))
    assert (top.indices + 1).tolist() == case["top10"], "another top 10"
    expected = torch.tensor(case["rows"], dtype=torch.float64)
    expected_scores = torch.tensor(case["top10Scores"], dtype=torch.float64)
    return max((rows - expected).abs().max().item(), (top.values - expected_scores).abs().max().item())


def main(folder: Path) -> None:
    files = sorted(folder.glob("research-*.json"))
    if not files:
        sys.exit(f"no research-*.json in {folder}")
    passed = failed = 0
    for file in files:
        golden = json.loads(file.read_text())
        model = load_reference(load_file(file.with_suffix(".safetensors")), golden["config"])
        for number, case in enumerate(golden["cases"]):
            difference = worst_difference(model, case)
            good = difference <= TOLERANCE
            passed, failed = passed + good, failed + (not good)
            print(f"{'ok  ' if good else 'FAIL'} {file.stem} case {number}: {len(case['ids'])} rows, worst |difference| {difference:.2e}")
    print(f"{passed} passed, {failed} failed")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
