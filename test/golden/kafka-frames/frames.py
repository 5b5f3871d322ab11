"""`python frames.py BOOTSTRAP`: writes the frames of librdkafka's producer (confluent-kafka) and prints what it wrote."""
import base64
import json
import sys

from confluent_kafka import Producer

T0 = 1_700_000_000_000
CODECS = ["none", "gzip", "snappy", "lz4", "zstd"]
b64 = lambda data: None if data is None else base64.b64encode(data).decode()


def odd():
    return [
        (b"k0", b"value 0", T0, []),
        (None, b"no key", T0 + 1, []),
        (b"k2", None, T0 + 2, []),
        (b"", b"", T0 + 300_000, []),
        (b"\x00\xff\x80", bytes(range(256)), T0 - 1_000, [("h", b"x"), ("h", None), ("ключ", b"")]),
    ]


def texts(count, size, first):
    line = lambda i: f"record {i} of a sequence of user actions; "
    return [
        (b"user-%d" % i, (line(i) * (size // len(line(i)) + 1))[:size].encode(), T0 + i, [("n", b"%d" % i)])
        for i in range(first, first + count)
    ]


def producer(codec, **more):
    return Producer(
        {
            "bootstrap.servers": sys.argv[1],
            "compression.type": codec,
            "linger.ms": 500,
            "batch.size": 3_000_000,
            "message.max.bytes": 5_000_000,
            **{name.replace("_", "."): value for name, value in more.items()},
        }
    )


def batch(p, frame, records):
    def told(error, message, record):
        if error is not None:
            raise RuntimeError(error)
        key, value, timestamp, headers = record
        print(json.dumps({"frame": frame, "offset": message.offset(), "timestampMs": timestamp, "key": b64(key), "value": b64(value), "headers": [[k, b64(v)] for k, v in headers]}))

    for record in records:
        key, value, timestamp, headers = record
        p.produce(frame, value, key, 0, timestamp=timestamp, headers=headers, on_delivery=lambda e, m, record=record: told(e, m, record))
    p.flush()


for codec in CODECS:
    p = producer(codec)
    batch(p, f"librdkafka-{codec}", odd())
    batch(p, f"librdkafka-{codec}", texts(5, 200 if codec == "none" else 50_000, 10))
    batch(p, f"librdkafka-{codec}", texts(1, 40, 20))

p = producer("zstd", transactional_id="librdkafka")
p.init_transactions(30)
for n, end in enumerate([p.commit_transaction, p.abort_transaction, p.commit_transaction]):
    p.begin_transaction()
    batch(p, "librdkafka-transactions", texts(2, 2_000, 10 * n))
    end(30)
