"""The files beside this one: python make.py, with pyarrow 26.0.1."""
import datetime
import decimal
import pathlib

import pyarrow as pa
import pyarrow.parquet as pq

here = pathlib.Path(__file__).parent
n = 60
table = pa.table(
    {
        "s": [f"u{i % 7}" for i in range(n)],
        "i": pa.array(range(n), pa.int32()),
        "ts": pa.array([datetime.datetime(2024, 1, 1)] * n, pa.timestamp("us", tz="UTC")),
        "dec": pa.array([decimal.Decimal("1.23")] * n, pa.decimal128(20, 2)),
        "l": [[1, 2, None] if i % 3 else None for i in range(n)],
        "st": [{"a": i, "b": {"c": [{"d": "x"}]}} for i in range(n)],
        "m": pa.array([[("k", 1)]] * n, pa.map_(pa.string(), pa.int64())),
        "cat": pa.array(["a", "b"] * (n // 2)).dictionary_encode(),
        "nul": pa.nulls(n),
    }
)
for codec in ["NONE", "SNAPPY", "GZIP", "BROTLI", "LZ4", "ZSTD"]:
    pq.write_table(table, here / f"nested-{codec.lower()}.parquet", compression=codec)
pq.write_table(table, here / "page-index.parquet", write_page_index=True, row_group_size=20)
pq.write_table(table, here / "plain-v1.parquet", version="1.0", data_page_version="2.0", use_dictionary=False, write_statistics=False)
pq.write_table(table.select(["s", "i"]), here / "bloom.parquet", bloom_filter_options={"s": True})
pq.write_table(table.slice(0, 0), here / "empty.parquet")
pq.write_table(pa.table({}), here / "no-columns.parquet")
# Legal, 2 kB, and 20 GB when it is unpacked: one value of 10 MB, 2,000 times.
once = pa.DictionaryArray.from_arrays(pa.array([0] * 2000, pa.int32()), pa.array(["x" * 10_000_000]))
rows = {"userId": once, "movieId": ["1"] * 2000, "rating": [1.0] * 2000, "timestamp": [1] * 2000}
pq.write_table(pa.table(rows), here / "unpacks-to-20-gb.parquet", compression="zstd")
