package peer;

import ai.onnxruntime.OnnxTensor;
import ai.onnxruntime.OrtEnvironment;
import ai.onnxruntime.OrtException;
import ai.onnxruntime.OrtSession;
import java.io.File;
import java.io.IOException;
import java.io.Reader;
import java.nio.ByteBuffer;
import java.nio.FloatBuffer;
import java.nio.LongBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import org.apache.avro.Schema;
import org.apache.avro.generic.GenericDatumReader;
import org.apache.avro.generic.GenericRecord;
import org.apache.avro.io.BinaryDecoder;
import org.apache.avro.io.DecoderFactory;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.Topology;
import org.apache.kafka.streams.processor.api.Processor;
import org.apache.kafka.streams.processor.api.ProcessorContext;
import org.apache.kafka.streams.processor.api.Record;
import org.apache.kafka.streams.processor.api.RecordMetadata;
import org.apache.kafka.streams.state.KeyValueStore;
import org.apache.kafka.streams.state.Stores;

/**
 * What a Kafka Streams user would write today: the window of each user in a state store with its changelog, and a full encode of
 * that window by ONNX Runtime for every action.
 */
public final class FullReencode {
  private static final String HISTORIES = "histories";

  public static void main(String[] args) throws Exception {
    Properties settings = new Properties();
    try (Reader reader = Files.newBufferedReader(Path.of(args[0]))) {
      settings.load(reader);
    }
    Model model = new Model(settings);
    Topology topology = new Topology();
    topology.addSource("actions", Serdes.String().deserializer(), Serdes.ByteArray().deserializer(), settings.getProperty("input"));
    topology.addProcessor("encode", () -> new Encode(model, settings), "actions");
    topology.addStateStore(
        Stores.keyValueStoreBuilder(Stores.persistentKeyValueStore(HISTORIES), Serdes.String(), Serdes.ByteArray())
            .withCachingEnabled(),
        "encode");
    topology.addSink("embeddings", settings.getProperty("output"), Serdes.String().serializer(), Serdes.ByteArray().serializer(), "encode");

    Properties streams = new Properties();
    streams.put(StreamsConfig.APPLICATION_ID_CONFIG, settings.getProperty("group"));
    streams.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, settings.getProperty("brokers"));
    streams.put(StreamsConfig.STATE_DIR_CONFIG, settings.getProperty("stateDir"));
    streams.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, settings.getProperty("threads"));
    streams.put(StreamsConfig.consumerPrefix(ConsumerConfig.AUTO_OFFSET_RESET_CONFIG), "earliest");
    KafkaStreams app = new KafkaStreams(topology, streams);
    app.setStateListener((now, before) -> System.out.println("state " + now));
    Runtime.getRuntime().addShutdownHook(new Thread(app::close));
    app.start();
  }

  /** A user's history as bytes: how many actions were accepted, then the window's entities and times. */
  private record History(int accepted, int[] entities, long[] timesS) {
    static History read(byte[] bytes) {
      if (bytes == null) return new History(0, new int[0], new long[0]);
      ByteBuffer buffer = ByteBuffer.wrap(bytes);
      int accepted = buffer.getInt();
      int n = buffer.remaining() / 12;
      int[] entities = new int[n];
      long[] timesS = new long[n];
      for (int i = 0; i < n; i++) entities[i] = buffer.getInt();
      for (int i = 0; i < n; i++) timesS[i] = buffer.getLong();
      return new History(accepted, entities, timesS);
    }

    byte[] bytes() {
      ByteBuffer buffer = ByteBuffer.allocate(4 + 12 * entities.length);
      buffer.putInt(accepted);
      for (int entity : entities) buffer.putInt(entity);
      for (long time : timesS) buffer.putLong(time);
      return buffer.array();
    }

    /** With one more action; whole blocks are forgotten where the window is full. */
    History with(int entity, long timeS, int maxLength, int blockLength) {
      int n = entities.length;
      int dropped = n + 1 > maxLength ? blockLength : 0;
      int[] nextEntities = new int[n + 1 - dropped];
      long[] nextTimes = new long[n + 1 - dropped];
      System.arraycopy(entities, dropped, nextEntities, 0, n - dropped);
      System.arraycopy(timesS, dropped, nextTimes, 0, n - dropped);
      nextEntities[n - dropped] = entity;
      nextTimes[n - dropped] = timeS;
      return new History(accepted + 1, nextEntities, nextTimes);
    }
  }

  private static final class Model {
    private final OrtEnvironment environment = OrtEnvironment.getEnvironment();
    private final OrtSession session;
    final Map<String, Integer> entities = new HashMap<>();
    final Schema schema;

    Model(Properties settings) throws OrtException, IOException {
      OrtSession.SessionOptions options = new OrtSession.SessionOptions();
      options.setIntraOpNumThreads(1);
      options.setOptimizationLevel(OrtSession.SessionOptions.OptLevel.ALL_OPT);
      session = environment.createSession(settings.getProperty("model"), options);
      List<String> names = Files.readAllLines(Path.of(settings.getProperty("entities")));
      for (int i = 0; i < names.size(); i++) entities.put(names.get(i), i + 1);
      schema = new Schema.Parser().parse(new File(settings.getProperty("schema")));
    }

    float[] encode(History history) throws OrtException {
      int n = history.entities().length;
      long[] ids = new long[n];
      for (int i = 0; i < n; i++) ids[i] = history.entities()[i];
      long[] times = java.util.Arrays.copyOf(history.timesS(), n + 1);
      times[n] = times[n - 1];
      try (OnnxTensor idTensor = OnnxTensor.createTensor(environment, LongBuffer.wrap(ids), new long[] {n});
          OnnxTensor timeTensor = OnnxTensor.createTensor(environment, LongBuffer.wrap(times), new long[] {n + 1});
          OrtSession.Result result = session.run(Map.of("ids", idTensor, "times", timeTensor))) {
        FloatBuffer row = ((OnnxTensor) result.get(0)).getFloatBuffer();
        float[] embedding = new float[row.remaining()];
        row.get(embedding);
        return embedding;
      }
    }
  }

  private static final class Encode implements Processor<String, byte[], String, byte[]> {
    private static final int HEADER_BYTES = 5;
    private final Model model;
    private final String action;
    private final int maxLength;
    private final int blockLength;
    private final long encodeFromMs;
    private final GenericDatumReader<GenericRecord> reader;
    private BinaryDecoder decoder;
    private ProcessorContext<String, byte[]> context;
    private KeyValueStore<String, byte[]> histories;

    Encode(Model model, Properties settings) {
      this.model = model;
      action = settings.getProperty("action");
      maxLength = Integer.parseInt(settings.getProperty("maxLength"));
      blockLength = Integer.parseInt(settings.getProperty("blockLength"));
      encodeFromMs = Long.parseLong(settings.getProperty("encodeFromMs"));
      reader = new GenericDatumReader<>(model.schema);
    }

    @Override
    public void init(ProcessorContext<String, byte[]> context) {
      this.context = context;
      histories = context.getStateStore(HISTORIES);
    }

    @Override
    public void process(Record<String, byte[]> message) {
      try {
        byte[] value = message.value();
        decoder = DecoderFactory.get().binaryDecoder(value, HEADER_BYTES, value.length - HEADER_BYTES, decoder);
        GenericRecord record = reader.read(null, decoder);
        Integer entity = model.entities.get(record.get("entity").toString());
        if (entity == null || !action.equals(record.get("action").toString())) return;
        long timeMs = (Long) record.get("eventTimeMs");
        History history = History.read(histories.get(message.key())).with(entity, Math.floorDiv(timeMs, 1000L), maxLength, blockLength);
        histories.put(message.key(), history.bytes());
        if (timeMs < encodeFromMs) return;
        float[] embedding = model.encode(history);
        RecordMetadata at = context.recordMetadata().orElseThrow();
        ByteBuffer output = ByteBuffer.allocate(12 + 4 * embedding.length);
        output.putInt(at.partition()).putLong(at.offset());
        for (float number : embedding) output.putFloat(number);
        context.forward(message.withValue(output.array()));
      } catch (IOException | OrtException error) {
        throw new IllegalStateException(error);
      }
    }
  }
}
