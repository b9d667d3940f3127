import java.io.FileInputStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.stream.Stream;
import org.apache.arrow.flight.AsyncPutListener;
import org.apache.arrow.flight.FlightClient;
import org.apache.arrow.flight.FlightDescriptor;
import org.apache.arrow.flight.FlightEndpoint;
import org.apache.arrow.flight.FlightStream;
import org.apache.arrow.flight.Location;
import org.apache.arrow.flight.PutResult;
import org.apache.arrow.flight.Ticket;
import org.apache.arrow.memory.ArrowBuf;
import org.apache.arrow.memory.BufferAllocator;
import org.apache.arrow.memory.RootAllocator;
import org.apache.arrow.vector.FieldVector;
import org.apache.arrow.vector.ValueVector;
import org.apache.arrow.vector.VectorSchemaRoot;
import org.apache.arrow.vector.compare.VectorEqualsVisitor;
import org.apache.arrow.vector.dictionary.DictionaryEncoder;
import org.apache.arrow.vector.dictionary.DictionaryProvider;
import org.apache.arrow.vector.ipc.ArrowStreamReader;
import org.apache.arrow.vector.util.Validator;

/**
 * The default scenario of Arrow's Flight integration tests, by Arrow's own client for Java: each case is put batch by batch with app_metadata,
 * which each PutResult must bring back; then GetFlightInfo, DoGet of every endpoint, and a comparison with what was put.
 *
 * <p>java Scenario.java ADDR CASES ROOT: CASES is a folder of Arrow streams, ROOT where to put them. Prints a line for each case.
 */
public final class Scenario {
  private final BufferAllocator allocator = new RootAllocator();
  private final FlightClient client;

  private Scenario(Location server) {
    client = FlightClient.builder(allocator, server).build();
  }

  public static void main(String[] arguments) throws Exception {
    Scenario scenario = new Scenario(new Location(arguments[0].replace("grpc://", "grpc+tcp://")));
    List<Path> cases;
    try (Stream<Path> files = Files.list(Path.of(arguments[1]))) {
      cases = files.sorted().toList();
    }
    for (Path file : cases) {
      String name = file.getFileName().toString();
      String outcome = "ok";
      try {
        scenario.run(file, FlightDescriptor.path(arguments[2] + "/" + name));
      } catch (Exception | AssertionError failed) {
        outcome = String.valueOf(failed).lines().findFirst().orElse("failed");
      }
      System.out.println(name + "\t" + outcome);
    }
  }

  private void run(Path file, FlightDescriptor descriptor) throws Exception {
    int batches = put(file, descriptor);
    List<FlightEndpoint> endpoints = client.getInfo(descriptor).getEndpoints();
    check(endpoints.size() == 1, "one put makes one endpoint, not " + endpoints.size());
    for (FlightEndpoint endpoint : endpoints) {
      // No location means this very server.
      check(endpoint.getLocations().isEmpty(), "another server is named: " + endpoint.getLocations());
      compare(file, endpoint.getTicket(), batches);
    }
  }

  private int put(Path file, FlightDescriptor descriptor) throws Exception {
    AtomicInteger acknowledged = new AtomicInteger();
    AsyncPutListener answers = new AsyncPutListener() {
      @Override
      public void onNext(PutResult result) {
        int batch = acknowledged.getAndIncrement();
        String told = text(result.getApplicationMetadata());
        check(told.equals(String.valueOf(batch)), "the answer to batch " + batch + " brings " + told);
      }
    };
    int batches = 0;
    try (ArrowStreamReader reader = new ArrowStreamReader(new FileInputStream(file.toFile()), allocator)) {
      VectorSchemaRoot root = reader.getVectorSchemaRoot();
      boolean more = reader.loadNextBatch();
      FlightClient.ClientStreamListener stream = client.startPut(descriptor, root, reader, answers);
      for (; more; more = reader.loadNextBatch()) {
        byte[] number = String.valueOf(batches++).getBytes(StandardCharsets.UTF_8);
        ArrowBuf metadata = allocator.buffer(number.length);
        metadata.writeBytes(number);
        stream.putNext(metadata);
      }
      stream.completed();
      stream.getResult();
    }
    check(acknowledged.get() == batches, acknowledged + " answers to " + batches + " batches");
    return batches;
  }

  private void compare(Path file, Ticket ticket, int batches) throws Exception {
    try (FlightStream stream = client.getStream(ticket);
        ArrowStreamReader reader = new ArrowStreamReader(new FileInputStream(file.toFile()), allocator)) {
      VectorSchemaRoot expected = reader.getVectorSchemaRoot();
      Validator.compareSchemas(expected.getSchema(), stream.getSchema());
      int batch = 0;
      for (; stream.next(); batch++) {
        check(reader.loadNextBatch(), "more batches than were put");
        check(text(stream.getLatestMetadata()).equals(String.valueOf(batch)), "the metadata of batch " + batch);
        check(stream.getRoot().getRowCount() == expected.getRowCount(), stream.getRoot().getRowCount() + " rows in batch " + batch);
        compareColumns(expected, reader, stream.getRoot(), stream.getDictionaryProvider());
      }
      check(batch == batches, batch + " batches of " + batches);
    }
  }

  private static void compareColumns(VectorSchemaRoot expected, DictionaryProvider ours, VectorSchemaRoot found, DictionaryProvider theirs) {
    for (int k = 0; k < expected.getFieldVectors().size(); k++) {
      FieldVector left = expected.getVector(k);
      FieldVector right = found.getVector(k);
      check(VectorEqualsVisitor.vectorEquals(left, right), "another " + left.getField());
      if (left.getField().getDictionary() != null) {
        // So far only the indices are equal.
        try (ValueVector values = decoded(left, ours);
            ValueVector others = decoded(right, theirs)) {
          check(VectorEqualsVisitor.vectorEquals(values, others), "other values of " + left.getField());
        }
      }
    }
  }

  private static ValueVector decoded(FieldVector column, DictionaryProvider dictionaries) {
    return DictionaryEncoder.decode(column, dictionaries.lookup(column.getField().getDictionary().getId()));
  }

  private static String text(ArrowBuf buffer) {
    byte[] bytes = new byte[(int) buffer.readableBytes()];
    buffer.getBytes(buffer.readerIndex(), bytes);
    return new String(bytes, StandardCharsets.UTF_8);
  }

  private static void check(boolean holds, String otherwise) {
    if (!holds) {
      throw new IllegalStateException(otherwise);
    }
  }
}
