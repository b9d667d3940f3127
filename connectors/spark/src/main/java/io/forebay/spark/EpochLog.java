package io.forebay.spark;

import com.fasterxml.jackson.databind.JsonNode;
import io.grpc.Status;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.util.List;
import org.apache.arrow.flight.FlightStream;
import org.apache.arrow.vector.LargeVarBinaryVector;
import org.apache.arrow.vector.VectorSchemaRoot;
import org.apache.arrow.vector.types.pojo.ArrowType;
import org.apache.arrow.vector.types.pojo.Field;
import org.apache.arrow.vector.types.pojo.Schema;

/**
 * The last epoch of a streaming query and the session that holds it: one small file beside the parts, {@code _spark-QUERY.json}, which
 * readers of the dataset pass over.
 *
 * <p>It is written when all tasks of an epoch have ended well and before its publish. So when Spark runs an epoch again, the file names
 * the session of the run before: publishing that one again gives the version that it made, or makes it now; and only where it has been
 * aborted, which is final, the new run's session is published in its place. Neither order of crashes gives an epoch twice or not at all.
 */
final class EpochLog {
  /**
   * One epoch.
   *
   * @param epoch its number
   * @param session the session that was, or is about to be, published
   */
  record Entry(long epoch, String session) {}

  private static final Schema FILE = new Schema(List.of(Field.nullable("data", ArrowType.LargeBinary.INSTANCE)));

  private final Server address;
  private final String path;

  EpochLog(Options options, String query) {
    this.address = options.server();
    this.path = options.path().replaceAll("/+$", "") + "/_spark-" + query + ".json";
  }

  /** The last entry, or {@code null}. */
  Entry read() throws IOException {
    try (Connection server = Connection.open(address)) {
      byte[] ticket = server.info(file()).getEndpoints().get(0).getTicket().getBytes();
      JsonNode entry = Command.JSON.readTree(content(server, ticket));
      if (!entry.path("epoch").isNumber() || !entry.path("session").isTextual()) {
        throw new ForebayException(
            Status.Code.DATA_LOSS.name(), path + " does not hold an epoch and a session; whether the last epoch is published must be looked up");
      }
      return new Entry(entry.path("epoch").asLong(), entry.path("session").asText());
    } catch (ForebayException e) {
      if (e.is(Status.Code.NOT_FOUND)) {
        return null;
      }
      throw e;
    }
  }

  private byte[] content(Connection server, byte[] ticket) throws IOException {
    ByteArrayOutputStream bytes = new ByteArrayOutputStream();
    try (FlightStream stream = server.get(ticket)) {
      while (stream.next()) {
        LargeVarBinaryVector data = (LargeVarBinaryVector) stream.getRoot().getVector(0);
        for (int k = 0; k < data.getValueCount(); k++) {
          bytes.writeBytes(data.get(k));
        }
      }
      return bytes.toByteArray();
    } catch (Exception e) {
      throw ForebayException.of("reading " + path, e);
    }
  }

  /** Puts an entry in the last one's place, durably. */
  void write(Entry entry) throws IOException {
    byte[] json = Command.empty().with("epoch", entry.epoch()).with("session", entry.session()).bytes();
    try (Connection server = Connection.open(address);
        VectorSchemaRoot root = VectorSchemaRoot.create(FILE, server.allocator())) {
      ((LargeVarBinaryVector) root.getVector(0)).setSafe(0, json);
      root.setRowCount(1);
      Put put = Put.begin(server, file().with("mode", "overwrite").descriptor(), root, "writing " + path);
      try {
        put.send();
        put.end();
      } finally {
        put.cancel();
      }
    }
  }

  private Command file() {
    return Command.empty().with("path", path).with("kind", "file");
  }
}
