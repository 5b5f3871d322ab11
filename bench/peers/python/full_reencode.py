"""What a Python user would write today: a Quix Streams application that keeps each user's window in its state and re-encodes all of it with PyTorch for every action."""

import struct
import sys
from io import BytesIO
from pathlib import Path

import fastavro
import numpy as np
import torch
from quixstreams import Application, message_context
from safetensors.torch import load_file

sys.path.insert(0, str(Path(__file__).parents[3] / "models/training"))
from hstu import Hstu, HstuConfig  # noqa: E402

HEADER_BYTES = 5
settings = dict(line.split("=", 1) for line in Path(sys.argv[1]).read_text(encoding="utf-8").splitlines())
torch.set_num_threads(1)


def load_model() -> Hstu:
    """The bundle's tensors under the names of the training code."""
    tensors = load_file(settings["tensors"])
    vocabulary, width = tensors["entity_embedding"].shape
    heads, dqk, dv, layers = (int(settings[name]) for name in ("heads", "dqk", "dv", "layers"))
    padded, _ = tensors["position_embedding"].shape
    model = Hstu(HstuConfig(vocabulary - 1, padded, width, layers, heads, dqk, dv))
    named = {"entity_embedding": tensors["entity_embedding"], "position_embedding": tensors["position_embedding"]}
    for index in range(layers):
        name = f"layers.{index}."
        for part in ("uvqk", "time_bias", "position_bias"):
            named[name + part] = tensors[name + part]
        named[name + "output.weight"] = tensors[name + "output_weight"].T
        named[name + "output.bias"] = tensors[name + "output_bias"]
    model.load_state_dict(named)
    return model.eval()


model = load_model()
table = model.entities().detach()
schema = fastavro.schema.load_schema(settings["schema"])
entities = {name: row for row, name in enumerate(Path(settings["entities"]).read_text(encoding="utf-8").splitlines(), start=1)}
max_length, block_length = int(settings["maxLength"]), int(settings["blockLength"])
encode_from_ms = int(settings["encodeFromMs"])


def refresh(value: bytes, state) -> bytes | None:
    action = fastavro.schemaless_reader(BytesIO(value[HEADER_BYTES:]), schema, None)
    entity = entities.get(action["entity"])
    if entity is None or action["action"] != settings["action"]:
        return None
    history = state.get_bytes("history", b"")
    if len(history) // 16 + 1 > max_length:
        history = history[16 * block_length :]
    history += struct.pack("<qq", entity, action["eventTimeMs"] // 1000)
    state.set_bytes("history", history)
    if action["eventTimeMs"] < encode_from_ms:
        return None
    rows = torch.from_numpy(np.frombuffer(history, dtype="<i8").reshape(-1, 2).copy())
    times = torch.cat([rows[:, 1], rows[-1:, 1]])
    with torch.inference_mode():
        embedding = model(rows[None, :, 0], times[None], table)[0, -1]
    at = message_context()
    return struct.pack(">iq", at.partition, at.offset) + embedding.numpy().astype(">f4").tobytes()


application = Application(
    broker_address=settings["brokers"],
    consumer_group=settings["group"],
    auto_offset_reset="earliest",
    state_dir=settings["stateDir"],
    auto_create_topics=True,
    loglevel="WARNING",
)
actions = application.topic(settings["input"], key_deserializer="str", value_deserializer="bytes")
embeddings = application.topic(settings["output"], key_serializer="str", value_serializer="bytes")
stream = application.dataframe(actions).apply(refresh, stateful=True)
stream = stream[stream.apply(lambda value: value is not None)]
stream.to_topic(embeddings)
print("state RUNNING", flush=True)
application.run()
