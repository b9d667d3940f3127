package io.forebay.spark;

import io.grpc.Status;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.util.Arrays;
import org.apache.spark.sql.connector.write.PhysicalWriteInfo;
import org.apache.spark.sql.connector.write.WriterCommitMessage;
import org.apache.spark.sql.connector.write.streaming.StreamingDataWriterFactory;
import org.apache.spark.sql.connector.write.streaming.StreamingWrite;
import org.apache.spark.sql.types.StructType;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * A stream's write: a session for each epoch, so that each becomes visible in one step. Spark may run an epoch again after a crash; how
 * it is there once all the same is {@link EpochLog}'s.
 */
final class SessionStreamingWrite implements StreamingWrite {
  private static final Logger LOG = LoggerFactory.getLogger(SessionStreamingWrite.class);

  private final Options options;
  private final StructType rows;
  private final String mode;
  private final String query;
  private WriteSession session;

  SessionStreamingWrite(Options options, StructType rows, String mode, String query) {
    if (mode.equals("create")) {
      throw new IllegalArgumentException("a stream publishes many times; mode create goes with a batch write");
    }
    this.options = options;
    this.rows = rows;
    this.mode = mode;
    this.query = query;
  }

  @Override
  public StreamingDataWriterFactory createStreamingWriterFactory(PhysicalWriteInfo info) {
    try {
      session = WriteSession.begin(options, rows, mode, query);
    } catch (IOException e) {
      throw new UncheckedIOException(e.getMessage(), e);
    }
    return new TaskWriterFactory(options, session, rows);
  }

  @Override
  public void commit(long epoch, WriterCommitMessage[] messages) {
    try {
      boolean empty = Arrays.stream(messages).allMatch(message -> ((TaskCommit) message).rows() == 0);
      if (empty && mode.equals("append")) {
        session.abort();
      } else if (isCommitted(epoch)) {
        LOG.info("epoch {} of query {} is in {} already", epoch, query, options.path());
        session.abort();
      } else {
        new EpochLog(options, query).write(new EpochLog.Entry(epoch, session.id()));
        session.publish(messages);
      }
    } catch (IOException e) {
      throw new UncheckedIOException(e.getMessage(), e);
    }
  }

  /** Whether an earlier run has committed the epoch. One that it left half done is brought to its end. */
  private boolean isCommitted(long epoch) throws IOException {
    EpochLog.Entry last = new EpochLog(options, query).read();
    if (last == null || last.epoch() < epoch) {
      return false;
    }
    return last.epoch() > epoch || finish(last.session());
  }

  /** Publishes the session of an earlier run. False: it never will be. */
  private boolean finish(String earlier) throws IOException {
    try {
      WriteSession.publish(options, earlier, Command.empty().with("session", earlier).with("success_file", options.successFile()));
      return true;
    } catch (ForebayException e) {
      if (!e.is(Status.Code.FAILED_PRECONDITION) && !e.is(Status.Code.NOT_FOUND)) {
        throw e;
      }
      LOG.info("the session of an earlier run can not be published: {}", e.getMessage());
    }
    try (Connection server = Connection.open(options.server())) {
      server.act("abort", Command.empty().with("session", earlier));
      return false;
    } catch (ForebayException e) {
      if (e.is(Status.Code.FAILED_PRECONDITION)) {
        return true;
      }
      if (e.is(Status.Code.NOT_FOUND)) {
        return false;
      }
      throw e;
    }
  }

  @Override
  public void abort(long epoch, WriterCommitMessage[] messages) {
    if (session != null) {
      session.abort();
    }
  }

  @Override
  public String toString() {
    return "forebay " + mode + " " + options.path();
  }
}
