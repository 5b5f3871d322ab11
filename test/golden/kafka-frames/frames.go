// `go run . BOOTSTRAP`: writes the frames of two Go producers (franz-go, sarama) and prints what they wrote.
package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/IBM/sarama"
	"github.com/twmb/franz-go/pkg/kgo"
)

const t0 = 1_700_000_000_000

func text(s string) []byte { return []byte(s) }

func record(key, value []byte, ms int64, headers ...kgo.RecordHeader) *kgo.Record {
	return &kgo.Record{Key: key, Value: value, Timestamp: time.UnixMilli(ms), Headers: headers}
}

func odd() []*kgo.Record {
	all := make([]byte, 256)
	for i := range all {
		all[i] = byte(i)
	}
	return []*kgo.Record{
		record(text("k0"), text("value 0"), t0),
		record(nil, text("no key"), t0+1),
		record(text("k2"), nil, t0+2),
		record([]byte{}, []byte{}, t0+300_000),
		record([]byte{0, 0xff, 0x80}, all, t0-1_000, kgo.RecordHeader{Key: "h", Value: text("x")}, kgo.RecordHeader{Key: "h"}, kgo.RecordHeader{Key: "ключ", Value: []byte{}}),
	}
}

func texts(count, size, first int) (records []*kgo.Record) {
	for i := first; i < first+count; i++ {
		line := fmt.Sprintf("record %d of a sequence of user actions; ", i)
		value := strings.Repeat(line, size/len(line)+1)[:size]
		records = append(records, record(text(fmt.Sprint("user-", i)), text(value), t0+int64(i), kgo.RecordHeader{Key: "n", Value: text(fmt.Sprint(i))}))
	}
	return
}

func told(frame string, offset int64, r *kgo.Record) {
	b64 := func(bytes []byte) any {
		if bytes == nil {
			return nil
		}
		return base64.StdEncoding.EncodeToString(bytes)
	}
	headers := [][]any{}
	for _, h := range r.Headers {
		headers = append(headers, []any{h.Key, b64(h.Value)})
	}
	line, _ := json.Marshal(map[string]any{"frame": frame, "offset": offset, "timestampMs": r.Timestamp.UnixMilli(), "key": b64(r.Key), "value": b64(r.Value), "headers": headers})
	fmt.Println(string(line))
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func franz(codec kgo.CompressionCodec, more ...kgo.Opt) *kgo.Client {
	client, err := kgo.NewClient(append(more, kgo.SeedBrokers(os.Args[1]), kgo.ProducerBatchCompression(codec), kgo.ProducerLinger(300*time.Millisecond),
		kgo.ProducerBatchMaxBytes(3_000_000), kgo.RecordPartitioner(kgo.ManualPartitioner()))...)
	must(err)
	return client
}

func batch(client *kgo.Client, frame string, records []*kgo.Record) {
	for _, r := range records {
		r.Topic = frame
	}
	must(client.ProduceSync(context.Background(), records...).FirstErr())
	for _, r := range records {
		told(frame, r.Offset, r)
	}
}

func byFranz() {
	codecs := map[string]kgo.CompressionCodec{"none": kgo.NoCompression(), "gzip": kgo.GzipCompression(), "snappy": kgo.SnappyCompression(), "lz4": kgo.Lz4Compression(), "zstd": kgo.ZstdCompression()}
	for name, codec := range codecs {
		client := franz(codec)
		size := 50_000
		if name == "none" {
			size = 200
		}
		batch(client, "franz-go-"+name, odd())
		batch(client, "franz-go-"+name, texts(5, size, 10))
		batch(client, "franz-go-"+name, texts(1, 40, 20))
		client.Close()
	}
	client := franz(kgo.SnappyCompression(), kgo.TransactionalID("franz-go"))
	for n, end := range []kgo.TransactionEndTry{kgo.TryCommit, kgo.TryAbort, kgo.TryCommit} {
		must(client.BeginTransaction())
		batch(client, "franz-go-transactions", texts(2, 2_000, 10*n))
		must(client.EndTransaction(context.Background(), end))
	}
	client.Close()
}

func bySarama() {
	for name, codec := range map[string]sarama.CompressionCodec{"gzip": sarama.CompressionGZIP, "snappy": sarama.CompressionSnappy, "lz4": sarama.CompressionLZ4, "zstd": sarama.CompressionZSTD} {
		config := sarama.NewConfig()
		config.Version = sarama.V2_6_0_0
		config.Producer.Compression = codec
		config.Producer.Return.Successes = true
		config.Producer.Partitioner = sarama.NewManualPartitioner
		config.Producer.Flush.Frequency = 300 * time.Millisecond
		config.Producer.MaxMessageBytes = 3_000_000
		producer, err := sarama.NewSyncProducer([]string{os.Args[1]}, config)
		must(err)
		for _, records := range [][]*kgo.Record{odd(), texts(5, 50_000, 10)} {
			messages := []*sarama.ProducerMessage{}
			for _, r := range records {
				message := &sarama.ProducerMessage{Topic: "sarama-" + name, Timestamp: r.Timestamp}
				if r.Key != nil {
					message.Key = sarama.ByteEncoder(r.Key)
				}
				if r.Value != nil {
					message.Value = sarama.ByteEncoder(r.Value)
				}
				for _, h := range r.Headers {
					message.Headers = append(message.Headers, sarama.RecordHeader{Key: text(h.Key), Value: h.Value})
				}
				messages = append(messages, message)
			}
			must(producer.SendMessages(messages))
			for i, message := range messages {
				told("sarama-"+name, message.Offset, records[i])
			}
		}
		must(producer.Close())
	}
}

func main() {
	byFranz()
	bySarama()
}
