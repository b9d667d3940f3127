package io.forebay.spark;

import java.io.IOException;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import org.apache.arrow.vector.types.pojo.Schema;
import org.apache.spark.sql.catalyst.InternalRow;
import org.apache.spark.sql.connector.write.DataWriter;
import org.apache.spark.sql.connector.write.WriterCommitMessage;
import org.apache.spark.sql.types.StructType;
import org.apache.spark.unsafe.types.UTF8String;

/**
 * One attempt of one task that writes folders. Rows come sorted by their folders, whose texts are the last columns, so that one batch
 * is made at a time; each folder is a DoPut into its session. All of these calls end well in {@link #commit} and not before, so that
 * followers see no rows of an attempt that Spark may still give up.
 */
final class FolderWriter implements DataWriter<InternalRow> {
  /** Folders of one job, which is what the server publishes in one step. */
  static final int FOLDERS_MAX = 1000;

  /** Calls over one connection, of which a server takes 256. */
  static final int CALLS = 200;

  private final Server server;
  private final FolderTarget target;
  private final Schema schema;
  private final StructType rows;
  private final int batchRows;
  private final int task;
  private final long attempt;
  private final List<Connection> connections = new ArrayList<>();
  private final Map<PutTarget, Put> puts = new LinkedHashMap<>();
  private List<UTF8String> folder;
  private Put put;
  private RowBatch batch;
  private long written;

  FolderWriter(Server server, FolderTarget target, Schema schema, StructType rows, int batchRows, int task, long attempt) {
    this.server = server;
    this.target = target;
    this.schema = schema;
    this.rows = rows;
    this.batchRows = batchRows;
    this.task = task;
    this.attempt = attempt;
  }

  @Override
  public void write(InternalRow row) throws IOException {
    if (!isIn(row)) {
      open(row);
    }
    batch.add(row);
    written++;
    if (batch.isFull()) {
      send();
    }
  }

  private UTF8String text(InternalRow row, int k) {
    int at = schema.getFields().size() + k;
    return row.isNullAt(at) ? null : row.getUTF8String(at);
  }

  /** Whether a row belongs to the folder that is being written. */
  private boolean isIn(InternalRow row) {
    if (folder == null) {
      return false;
    }
    for (int k = 0; k < folder.size(); k++) {
      if (!Objects.equals(folder.get(k), text(row, k))) {
        return false;
      }
    }
    return true;
  }

  private void open(InternalRow row) throws IOException {
    finish();
    List<UTF8String> values = new ArrayList<>();
    for (int k = 0; k < target.columns().size(); k++) {
      UTF8String text = text(row, k);
      // Rows lie in memory that is used again.
      values.add(text == null ? null : text.copy());
    }
    String path = target.path(values);
    Connection connection = connection();
    PutTarget into = target.begin(connection, path);
    put = puts.get(into);
    if (put != null) {
      throw new IllegalStateException("rows of " + path + " come a second time; they have to be sorted by the columns of folders");
    }
    batch = new RowBatch(connection.allocator(), schema, rows, batchRows);
    String what = "writing task " + task + ", attempt " + attempt + ", of session " + into.session() + " of " + path;
    put = Put.begin(connection, into.descriptor(FolderTarget.number(task, attempt), attempt), batch.root(), what);
    puts.put(into, put);
    folder = values;
  }

  private Connection connection() throws IOException {
    if (puts.size() >= FOLDERS_MAX) {
      throw new IllegalArgumentException(
          target.root() + ": rows of more than " + FOLDERS_MAX + " folders in one job; write them by several, with conditions on "
              + target.columns().get(0));
    }
    if (puts.size() % CALLS == 0) {
      connections.add(Connection.open(server));
    }
    return connections.get(connections.size() - 1);
  }

  private void send() throws IOException {
    batch.finish();
    put.send();
    batch.clear();
  }

  /** Sends what is left for the folder that is being written. */
  private void finish() throws IOException {
    if (batch == null) {
      return;
    }
    if (batch.rows() > 0) {
      send();
    }
    batch.close();
    batch = null;
    folder = null;
  }

  @Override
  public WriterCommitMessage commit() throws IOException {
    finish();
    puts.values().forEach(Put::complete);
    for (Put each : puts.values()) {
      each.end();
    }
    return new FolderCommit(task, attempt, written, List.copyOf(puts.keySet()));
  }

  @Override
  public void abort() {
    puts.values().forEach(Put::cancel);
  }

  @Override
  public void close() {
    abort();
    if (batch != null) {
      batch.close();
      batch = null;
    }
    connections.forEach(Connection::close);
    connections.clear();
  }
}
