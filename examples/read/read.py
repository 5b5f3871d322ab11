# The newest embedding and list of every user, as they come.   pip install kafka-python fastavro
#   hstu-streams schemas UserEmbedding > UserEmbedding.avsc; hstu-streams schemas CandidateScores > CandidateScores.avsc
#   python read.py localhost:9092 user-embeddings candidate-scores
import io, json, sys
import fastavro
from kafka import KafkaConsumer

broker, embeddings, scores = sys.argv[1:4]
schemas = {embeddings: fastavro.schema.load_schema("UserEmbedding.avsc"), scores: fastavro.schema.load_schema("CandidateScores.avsc")}
newest = {}

# Only what was committed: outputs are written in transactions.
consumer = KafkaConsumer(embeddings, scores, bootstrap_servers=broker, isolation_level="read_committed", auto_offset_reset="earliest")
for message in consumer:
    user = message.key.decode()
    if message.value is None:  # a tombstone: the user was erased
        newest.pop((message.topic, user), None)
        continue
    # Behind a zero byte and four bytes of the schema's id.
    record = fastavro.schemaless_reader(io.BytesIO(message.value[5:]), schemas[message.topic])
    # What answers a request is no list of everybody's.
    if record.get("requestId") or record["version"] < newest.get((message.topic, user), 0):
        continue
    newest[message.topic, user] = record["version"]
    what = record["embedding"] if "embedding" in record else [c["entity"] for c in record["candidates"]]
    print(json.dumps({"topic": message.topic, "user": user, "version": record["version"], "first": what[:3]}), flush=True)
