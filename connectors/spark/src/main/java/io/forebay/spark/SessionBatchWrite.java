package io.forebay.spark;

import java.io.IOException;
import java.io.UncheckedIOException;
import org.apache.spark.sql.connector.write.BatchWrite;
import org.apache.spark.sql.connector.write.DataWriterFactory;
import org.apache.spark.sql.connector.write.PhysicalWriteInfo;
import org.apache.spark.sql.connector.write.WriterCommitMessage;
import org.apache.spark.sql.types.StructType;

/** A batch job's write: one session, begun before its tasks and published after the last of them. */
final class SessionBatchWrite implements BatchWrite {
  private final Options options;
  private final StructType rows;
  private final String mode;
  private final String job;
  private WriteSession session;

  SessionBatchWrite(Options options, StructType rows, String mode, String job) {
    this.options = options;
    this.rows = rows;
    this.mode = mode;
    this.job = job;
  }

  @Override
  public DataWriterFactory createBatchWriterFactory(PhysicalWriteInfo info) {
    try {
      session = WriteSession.begin(options, rows, mode, job);
    } catch (IOException e) {
      throw new UncheckedIOException(e.getMessage(), e);
    }
    return new TaskWriterFactory(options, session, rows);
  }

  @Override
  public void commit(WriterCommitMessage[] messages) {
    try {
      session.publish(messages);
    } catch (IOException e) {
      throw new UncheckedIOException(e.getMessage(), e);
    }
  }

  @Override
  public void abort(WriterCommitMessage[] messages) {
    if (session != null) {
      session.abort();
    }
  }

  @Override
  public String toString() {
    return "forebay " + mode + " " + options.path();
  }
}
