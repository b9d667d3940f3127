package io.forebay.spark;

import io.grpc.Status;
import java.io.IOException;
import org.apache.arrow.vector.types.pojo.Schema;
import org.apache.spark.sql.catalyst.InternalRow;
import org.apache.spark.sql.connector.write.DataWriter;
import org.apache.spark.sql.connector.write.WriterCommitMessage;
import org.apache.spark.sql.types.StructType;

/**
 * One attempt of one task: its rows as one DoPut into the session. The call ends well only in {@link #commit}, which Spark allows one
 * attempt at a time; whatever else ends it (an error, an abort, the executor's death) takes its rows back.
 */
final class TaskWriter implements DataWriter<InternalRow> {
  private final Server server;
  private final PutTarget target;
  private final Schema schema;
  private final StructType rows;
  private final int batchRows;
  private final int task;
  private final long attempt;
  private Connection connection;
  private RowBatch batch;
  private Put put;
  private long written;

  TaskWriter(Server server, PutTarget target, Schema schema, StructType rows, int batchRows, int task, long attempt) {
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
    open();
    batch.add(row);
    written++;
    if (batch.isFull()) {
      send();
    }
  }

  /** Begins the call with the first row: a task without rows makes no part. */
  private void open() throws IOException {
    if (put != null) {
      return;
    }
    connection = Connection.open(server);
    batch = new RowBatch(connection.allocator(), schema, rows, batchRows);
    put = Put.begin(connection, target.descriptor(task, attempt), batch.root(), what());
  }

  private String what() {
    return "writing task " + task + ", attempt " + attempt + ", of session " + target.session() + " of " + target.path();
  }

  private void send() throws IOException {
    batch.finish();
    put.send();
    batch.clear();
  }

  @Override
  public WriterCommitMessage commit() throws IOException {
    if (written == 0 && task != 0) {
      return new TaskCommit(task, attempt, TaskCommit.Outcome.EMPTY, 0);
    }
    // Of a table without rows the first task says what its columns are.
    open();
    if (batch.rows() > 0) {
      send();
    }
    try {
      put.end();
      return new TaskCommit(task, attempt, TaskCommit.Outcome.WROTE, written);
    } catch (ForebayException e) {
      if (!e.is(Status.Code.ABORTED)) {
        throw e;
      }
      // The executor of the attempt that won was lost before it could say so. If the session itself has ended, its publish will say so.
      return new TaskCommit(task, attempt, TaskCommit.Outcome.SUPERSEDED, written);
    }
  }

  @Override
  public void abort() {
    if (put != null) {
      put.cancel();
    }
  }

  @Override
  public void close() {
    // What comes later may be missing, where beginning it failed.
    if (put != null) {
      put.cancel();
    }
    if (batch != null) {
      batch.close();
      batch = null;
    }
    if (connection != null) {
      connection.close();
      connection = null;
    }
  }
}
