package io.forebay.spark;

import com.fasterxml.jackson.databind.JsonNode;
import io.grpc.Status;
import java.io.IOException;
import java.util.ArrayList;
import java.util.List;
import org.apache.arrow.vector.types.pojo.Schema;
import org.apache.spark.sql.connector.write.WriterCommitMessage;
import org.apache.spark.sql.types.StructType;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * A session on the driver's side: begun, kept alive while tasks run, and ended in one of two ways, each once.
 *
 * <ol>
 *   <li>{@link #begin}: nothing of it can be seen.
 *   <li>Tasks put into it. Of the attempts of a task the server takes the first that ends well, and tells a later one.
 *   <li>{@link #publish}: all of it can be seen; or {@link #abort}: nothing ever.
 * </ol>
 *
 * A driver that dies in between leaves a session that the server aborts after its timeout.
 */
final class WriteSession {
  private static final Logger LOG = LoggerFactory.getLogger(WriteSession.class);

  /** How often a publish whose outcome is unknown is asked again, and how long between. It gives the same version each time. */
  private static final int ATTEMPTS = 10;

  private static final long PAUSE_MILLIS_MAX = 10_000;

  /** Most bytes of an action's body. */
  static final int BODY_BYTES_MAX = 1 << 20;

  /** The same less what is around the tasks. */
  private static final int TASKS_BYTES_MAX = BODY_BYTES_MAX - 4096;

  private final Options options;
  private final String id;
  private final String job;
  private final Schema schema;
  private final SessionKeeper keeper;

  private WriteSession(Options options, String id, String job, Schema schema) {
    this.options = options;
    this.id = id;
    this.job = job;
    this.schema = schema;
    this.keeper = new SessionKeeper(options.server(), schema, List.of(target()), job);
  }

  /** Begins a session. {@code job} names the writer for whoever looks. */
  static WriteSession begin(Options options, StructType rows, String mode, String job) throws IOException {
    try (Connection server = Connection.open(options.server())) {
      Schema schema = WriteSchema.of(server, options.path(), mode, rows);
      Command begin = Command.empty().with("path", options.path()).with("mode", mode).with("job", job);
      options.session().forEach(begin::with);
      String id = server.actOne("begin", begin).path("session").asText();
      LOG.info("session {} of {} begun, mode {}", id, options.path(), mode);
      return new WriteSession(options, id, job, schema);
    }
  }

  String id() {
    return id;
  }

  /** Where tasks put. */
  PutTarget target() {
    return new PutTarget(options.path(), id, job);
  }

  Schema schema() {
    return schema;
  }

  /** Makes everything visible, in one step. */
  long publish(WriterCommitMessage[] messages) throws IOException {
    keeper.close();
    long version = publish(options, id, request(messages));
    LOG.info("session {} of {} published as version {}", id, options.path(), version);
    return version;
  }

  /** The body of the publish: the attempts that count, or, where only the server knows which those are, all that ended well. */
  private Command request(WriterCommitMessage[] messages) {
    List<Command> tasks = new ArrayList<>();
    boolean named = true;
    long bytes = 0;
    for (WriterCommitMessage message : messages) {
      TaskCommit commit = (TaskCommit) message;
      named &= commit.outcome() != TaskCommit.Outcome.SUPERSEDED;
      if (commit.outcome() == TaskCommit.Outcome.WROTE) {
        Command task = commit.name(job);
        tasks.add(task);
        bytes += task.bytes().length + 1;
      }
    }
    Command publish = Command.empty().with("session", id).with("success_file", options.successFile());
    return named && bytes <= TASKS_BYTES_MAX && !tasks.isEmpty() ? publish.withAll("tasks", tasks) : publish;
  }

  static long publish(Options options, String id, Command request) throws IOException {
    return ask(options, id, request).path("version").asLong();
  }

  /** Asks until the answer is known. Where it stays unknown, an abort decides: it is refused by a session that is published. */
  static JsonNode ask(Options options, String id, Command request) throws IOException {
    ForebayException last = null;
    for (int attempt = 0; attempt < ATTEMPTS; attempt++) {
      pause(attempt);
      try (Connection server = Connection.open(options.server())) {
        return server.actOne("publish", request);
      } catch (ForebayException e) {
        if (!e.isPassing()) {
          throw e;
        }
        LOG.warn("the outcome of publishing session {} is not known yet: {}", id, e.getMessage());
        last = e;
      }
    }
    LOG.error("whether this publish has come through is not known; the same again tells: {}", request);
    throw new ForebayException(
        Status.Code.DEADLINE_EXCEEDED.name(),
        "whether session "
            + id
            + " of "
            + options.path()
            + " is published is not known; action publish with the body in the log tells, and publishes it if it is not. Last answer: "
            + last.getMessage());
  }

  private static void pause(int attempt) throws IOException {
    try {
      Thread.sleep(attempt == 0 ? 0 : Math.min(PAUSE_MILLIS_MAX, 250L << attempt));
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
      throw new IOException("interrupted while publishing", e);
    }
  }

  /** Drops everything. Failing to say so costs space until the session's timeout and nothing else. */
  void abort() {
    keeper.close();
    abort(options, id);
  }

  static void abort(Options options, String id) {
    abort(options, List.of(new PutTarget(options.path(), id, null)));
  }

  static void abort(Options options, List<PutTarget> sessions) {
    try (Connection server = Connection.open(options.server())) {
      for (PutTarget session : sessions) {
        abort(server, session);
      }
    } catch (IOException | RuntimeException e) {
      LOG.warn("sessions of {} could not be aborted; those that are not published end by their timeout: {}", options.path(), e.getMessage());
    }
  }

  private static void abort(Connection server, PutTarget session) {
    try {
      List<JsonNode> done = server.act("abort", Command.empty().with("session", session.session()));
      LOG.info("session {} of {} aborted {}", session.session(), session.path(), done);
    } catch (IOException | RuntimeException e) {
      LOG.warn(
          "session {} of {} could not be aborted; unless it is published it ends by its timeout: {}", session.session(), session.path(), e.getMessage());
    }
  }
}
