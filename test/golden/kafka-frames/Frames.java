import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.*;
import java.util.concurrent.Future;
import org.apache.kafka.clients.consumer.*;
import org.apache.kafka.clients.producer.*;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.serialization.*;

/** `java -cp 'libs/*' Frames.java write|read BOOTSTRAP …`: writes the frames of Java's producer, or reads partition 0 of topics. */
public class Frames {
  static final long T0 = 1_700_000_000_000L;
  static final PrintStream OUT = new PrintStream(System.out, false, StandardCharsets.UTF_8);
  static String bootstrap;

  record Rec(byte[] key, byte[] value, long timestamp, Object... headers) {}

  public static void main(String[] args) throws Exception {
    bootstrap = args[1];
    if (args[0].equals("read")) for (String topic : args[2].split(",")) read(topic, args[3]);
    else write();
    OUT.flush();
  }

  static void write() throws Exception {
    for (String codec : List.of("none", "gzip", "snappy", "lz4", "zstd"))
      try (var p = producer(codec, codec.equals("none") ? Map.of("enable.idempotence", false, "acks", "1") : Map.of())) {
        batch(p, "java-" + codec, odd());
        batch(p, "java-" + codec, texts(5, codec.equals("none") ? 200 : 50_000, 10));
        batch(p, "java-" + codec, texts(1, 40, 20));
      }
    // Java's zstd stream writes no content size.
    try (var p = producer("zstd", Map.of())) {
      batch(p, "java-zstd-large", texts(20, 80_000, 0));
    }
    try (var p = producer("zstd", Map.of())) {
      var many = new ArrayList<Rec>();
      for (int i = 0; i < 20_000; i++) many.add(new Rec(null, text("abcdefgh"), T0));
      batch(p, "java-many", many);
    }
    for (String codec : List.of("none", "gzip"))
      try (var p = producer(codec, Map.of())) {
        batch(p, "java-log-append-time", odd());
      }
    transactions();
    compacted();
  }

  /** Two aborted transactions of two producers under way at once, one begun before the other; a committed one between and after. */
  static void transactions() throws Exception {
    String topic = "java-transactions";
    try (var a = producer("lz4", Map.of("transactional.id", "a"));
        var b = producer("none", Map.of("transactional.id", "b"));
        var c = producer("gzip", Map.of("transactional.id", "c"));
        var plain = producer("none", Map.of())) {
      a.initTransactions();
      b.initTransactions();
      c.initTransactions();
      batch(plain, topic, texts(1, 20, 0));
      b.beginTransaction();
      batch(b, topic, texts(2, 20, 1));
      a.beginTransaction();
      batch(a, topic, texts(2, 2_000, 3));
      c.beginTransaction();
      batch(c, topic, texts(2, 2_000, 5));
      batch(plain, topic, List.of(new Rec(new byte[4], text("a key of four zero bytes"), T0)));
      batch(b, topic, List.of(new Rec(new byte[4], text("a key of four zero bytes, aborted"), T0), new Rec(text("b"), text("aborted"), T0)));
      a.abortTransaction();
      c.commitTransaction();
      b.abortTransaction();
      a.beginTransaction();
      batch(a, topic, texts(2, 20, 9));
      a.commitTransaction();
      batch(plain, topic, texts(1, 20, 11));
    }
  }

  /** Batches with gaps, one emptied (its producer's last), a tombstone; the log is cleaned after this. */
  static void compacted() throws Exception {
    String topic = "java-compacted";
    try (var first = producer("zstd", Map.of()); var second = producer("none", Map.of())) {
      batch(first, topic, keyed("a", "b", "c", "d", "e", "f"));
      batch(first, topic, keyed("b", "d", "b"));
      batch(first, topic, keyed("e", "a"));
      batch(second, topic, keyed("a", "e", "g"));
      batch(second, topic, List.of(new Rec(text("c"), null, T0)));
    }
    // Later than `segment.ms`: begins a new segment, and only what is before that is cleaned.
    try (var p = producer("none", Map.of())) {
      batch(p, topic, List.of(new Rec(text("last"), text("of last"), T0 + 600_000)));
    }
  }

  static List<Rec> keyed(String... keys) {
    return Arrays.stream(keys).map(key -> new Rec(text(key), text("of " + key), T0)).toList();
  }

  static List<Rec> odd() {
    byte[] all = new byte[256];
    for (int i = 0; i < 256; i++) all[i] = (byte) i;
    return List.of(
        new Rec(text("k0"), text("value 0"), T0),
        new Rec(null, text("no key"), T0 + 1),
        new Rec(text("k2"), null, T0 + 2),
        new Rec(new byte[0], new byte[0], T0 + 300_000),
        new Rec(new byte[] {0, -1, -128}, all, T0 - 1_000, "h", text("x"), "h", null, "ключ", new byte[0]));
  }

  static List<Rec> texts(int count, int bytes, int from) {
    var records = new ArrayList<Rec>();
    for (int i = from; i < from + count; i++) {
      var line = "record " + i + " of a sequence of user actions; ";
      records.add(new Rec(text("user-" + i), text(line.repeat(bytes / line.length() + 1).substring(0, bytes)), T0 + i, "n", text("" + i)));
    }
    return records;
  }

  static byte[] text(String s) {
    return s.getBytes(StandardCharsets.UTF_8);
  }

  static KafkaProducer<byte[], byte[]> producer(String codec, Map<String, ?> more) {
    var config = new HashMap<String, Object>(more);
    config.put("bootstrap.servers", bootstrap);
    config.put("compression.type", codec);
    // One `batch` here is one batch of the log.
    config.put("linger.ms", 60_000);
    config.put("delivery.timeout.ms", 200_000);
    config.put("batch.size", 3_000_000);
    config.put("max.request.size", 5_000_000);
    return new KafkaProducer<>(config, new ByteArraySerializer(), new ByteArraySerializer());
  }

  static void batch(KafkaProducer<byte[], byte[]> producer, String topic, List<Rec> records) throws Exception {
    var sent = new ArrayList<Future<RecordMetadata>>();
    for (var rec : records) {
      var record = new ProducerRecord<>(topic, 0, rec.timestamp, rec.key, rec.value);
      for (int i = 0; i < rec.headers.length; i += 2) record.headers().add((String) rec.headers[i], (byte[]) rec.headers[i + 1]);
      sent.add(producer.send(record));
    }
    producer.flush();
    for (int i = 0; i < sent.size(); i++) {
      var at = sent.get(i).get();
      var rec = records.get(i);
      var headers = new ArrayList<String>();
      for (int h = 0; h < rec.headers.length; h += 2) headers.add(header((String) rec.headers[h], (byte[]) rec.headers[h + 1]));
      print(topic, at.offset(), at.timestamp(), rec.key, rec.value, headers);
    }
  }

  static void read(String topic, String isolation) {
    var config = Map.<String, Object>of("bootstrap.servers", bootstrap, "isolation.level", isolation, "max.partition.fetch.bytes", 5_000_000);
    try (var consumer = new KafkaConsumer<>(config, new ByteArrayDeserializer(), new ByteArrayDeserializer())) {
      var at = new TopicPartition(topic, 0);
      consumer.assign(List.of(at));
      consumer.seekToBeginning(List.of(at));
      long end = consumer.endOffsets(List.of(at)).get(at);
      while (consumer.position(at) < end)
        for (var r : consumer.poll(Duration.ofSeconds(1))) {
          var headers = new ArrayList<String>();
          for (Header h : r.headers()) headers.add(header(h.key(), h.value()));
          print(topic, r.offset(), r.timestamp(), r.key(), r.value(), headers);
        }
    }
  }

  static String header(String key, byte[] value) {
    return "[\"" + key + "\"," + quoted(value) + "]";
  }

  static String quoted(byte[] bytes) {
    return bytes == null ? "null" : "\"" + Base64.getEncoder().encodeToString(bytes) + "\"";
  }

  static void print(String topic, long offset, long timestamp, byte[] key, byte[] value, List<String> headers) {
    OUT.printf("{\"frame\":\"%s\",\"offset\":%d,\"timestampMs\":%d,\"key\":%s,\"value\":%s,\"headers\":[%s]}%n", topic, offset, timestamp, quoted(key), quoted(value), String.join(",", headers));
  }
}
