// The default scenario of Arrow's Flight integration tests, by Arrow's own client for Go: each case is put batch by batch with app_metadata,
// which each PutResult must bring back; then GetFlightInfo, DoGet of every endpoint, and a comparison with what was put.
//
//	scenario ADDR CASES ROOT
//
// CASES is a folder of Arrow streams, ROOT where to put them. Prints a line for each case.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/flight"
	"github.com/apache/arrow-go/v18/arrow/ipc"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

func main() {
	address := strings.TrimPrefix(os.Args[1], "grpc://")
	client, err := flight.NewClientWithMiddleware(address, nil, nil, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	defer client.Close()
	// Sorted by name.
	entries, err := os.ReadDir(os.Args[2])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	for _, entry := range entries {
		outcome := "ok"
		if err := run(client, filepath.Join(os.Args[2], entry.Name()), os.Args[3]+"/"+entry.Name()); err != nil {
			outcome = strings.Split(err.Error(), "\n")[0]
		}
		fmt.Printf("%s\t%s\n", entry.Name(), outcome)
	}
}

func run(client flight.Client, file, path string) (err error) {
	defer func() {
		if panicked := recover(); panicked != nil {
			err = fmt.Errorf("panic: %v", panicked)
		}
	}()
	schema, batches, err := read(file)
	if err != nil {
		return err
	}
	descriptor := &flight.FlightDescriptor{Type: flight.DescriptorPATH, Path: []string{path}}
	if err := put(client, descriptor, schema, batches); err != nil {
		return fmt.Errorf("DoPut: %w", err)
	}
	info, err := client.GetFlightInfo(context.Background(), descriptor)
	if err != nil {
		return fmt.Errorf("GetFlightInfo: %w", err)
	}
	if len(info.Endpoint) != 1 {
		return fmt.Errorf("one put makes one endpoint, not %d", len(info.Endpoint))
	}
	for _, endpoint := range info.Endpoint {
		// No location means this very server.
		if len(endpoint.Location) != 0 {
			return fmt.Errorf("another server is named: %v", endpoint.Location)
		}
		if err := compare(client, endpoint.Ticket, schema, batches); err != nil {
			return fmt.Errorf("DoGet: %w", err)
		}
	}
	return nil
}

func read(file string) (*arrow.Schema, []arrow.RecordBatch, error) {
	opened, err := os.Open(file)
	if err != nil {
		return nil, nil, err
	}
	defer opened.Close()
	reader, err := ipc.NewReader(opened)
	if err != nil {
		return nil, nil, err
	}
	defer reader.Release()
	var batches []arrow.RecordBatch
	for reader.Next() {
		batch := reader.RecordBatch()
		batch.Retain()
		batches = append(batches, batch)
	}
	return reader.Schema(), batches, reader.Err()
}

func put(client flight.Client, descriptor *flight.FlightDescriptor, schema *arrow.Schema, batches []arrow.RecordBatch) error {
	stream, err := client.DoPut(context.Background())
	if err != nil {
		return err
	}
	writer := flight.NewRecordWriter(stream, ipc.WithSchema(schema))
	writer.SetFlightDescriptor(descriptor)
	for k, batch := range batches {
		number := strconv.Itoa(k)
		if err := writer.WriteWithAppMetadata(batch, []byte(number)); err != nil {
			return err
		}
		answer, err := stream.Recv()
		if err != nil {
			return err
		}
		if told := string(answer.GetAppMetadata()); told != number {
			return fmt.Errorf("the answer to batch %s brings %q", number, told)
		}
	}
	if err := writer.Close(); err != nil {
		return err
	}
	if err := stream.CloseSend(); err != nil {
		return err
	}
	if _, err := stream.Recv(); !errors.Is(err, io.EOF) {
		return fmt.Errorf("the end is %v", err)
	}
	return nil
}

func compare(client flight.Client, ticket *flight.Ticket, schema *arrow.Schema, batches []arrow.RecordBatch) error {
	stream, err := client.DoGet(context.Background(), ticket)
	if err != nil {
		return err
	}
	reader, err := flight.NewRecordReader(stream)
	if err != nil {
		return err
	}
	defer reader.Release()
	if !schema.Equal(reader.Schema()) {
		return fmt.Errorf("the schema is %v", strings.ReplaceAll(reader.Schema().String(), "\n", " "))
	}
	for k, batch := range batches {
		if !reader.Next() {
			return fmt.Errorf("%d batches of %d: %v", k, len(batches), reader.Err())
		}
		if !array.RecordEqual(batch, reader.RecordBatch()) {
			return fmt.Errorf("batch %d is another", k)
		}
		if told := string(reader.LatestAppMetadata()); told != strconv.Itoa(k) {
			return fmt.Errorf("the metadata of batch %d is %q", k, told)
		}
	}
	if reader.Next() {
		return fmt.Errorf("more batches than were put")
	}
	return reader.Err()
}
