package io.forebay.spark;

import io.grpc.Status;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import org.apache.arrow.flight.FlightDescriptor;
import org.apache.arrow.flight.FlightInfo;
import org.apache.arrow.flight.FlightStream;
import org.apache.spark.sql.connector.read.PartitionReader;
import org.apache.spark.sql.types.StructType;
import org.apache.spark.sql.vectorized.ColumnarBatch;

/** Streams one part. A batch is good until the next one is asked for, as Spark wants it. */
final class PartReader implements PartitionReader<ColumnarBatch> {
  private final Server asked;
  private final PartPartition part;
  private final StructType schema;
  private final FolderTypes folders;
  private Connection connection;
  private FlightStream stream;
  private boolean begun;

  private PartReader(Server asked, PartPartition part, StructType schema, FolderTypes folders) {
    this.asked = asked;
    this.part = part;
    this.schema = schema;
    this.folders = folders;
  }

  static PartReader open(Server asked, PartPartition part, StructType schema, FolderTypes folders) throws IOException {
    PartReader reader = new PartReader(asked, part, schema, folders);
    reader.connect(part.ticket());
    return reader;
  }

  private void connect(byte[] ticket) throws IOException {
    connection = Connection.open(part.server(asked));
    stream = connection.get(ticket);
  }

  @Override
  public boolean next() throws IOException {
    try {
      boolean more = stream.next();
      if (more && !begun) {
        begun = true;
        checkTypes();
      }
      return more;
    } catch (RuntimeException e) {
      ForebayException error = ForebayException.of("reading a part at " + part.server(asked).addr(), e);
      if (begun || !error.is(Status.Code.UNAUTHENTICATED) || part.command() == null) {
        throw error;
      }
      // Tickets are good for an hour; a stage may begin later.
      begun = true;
      renew();
      return next();
    }
  }

  private void renew() throws IOException {
    close();
    byte[] ticket;
    try (Connection server = Connection.open(asked)) {
      FlightDescriptor descriptor = FlightDescriptor.command(part.command().getBytes(StandardCharsets.UTF_8));
      FlightInfo info = server.info(descriptor, part.command());
      ticket = info.getEndpoints().get(part.endpoint()).getTicket().getBytes();
    }
    connect(ticket);
  }

  /** Buffers are read as the schema says: another type would be read as garbage. */
  private void checkTypes() {
    int columns = stream.getRoot().getFieldVectors().size();
    if (columns != schema.size()) {
      throw new IllegalStateException("a part has " + columns + " columns instead of " + schema.size());
    }
  }

  @Override
  public ColumnarBatch get() {
    return ArrowColumns.batch(stream.getRoot(), stream.getDictionaryProvider(), schema, folders);
  }

  @Override
  public void close() throws IOException {
    try {
      if (stream != null) {
        stream.close();
      }
    } catch (Exception e) {
      throw ForebayException.of("closing a part", e);
    } finally {
      stream = null;
      if (connection != null) {
        connection.close();
        connection = null;
      }
    }
  }
}
