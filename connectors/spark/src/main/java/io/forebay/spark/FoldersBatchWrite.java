package io.forebay.spark;

import com.fasterxml.jackson.databind.JsonNode;
import io.grpc.Status;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.UUID;
import org.apache.arrow.vector.VectorSchemaRoot;
import org.apache.arrow.vector.types.pojo.Schema;
import org.apache.spark.sql.connector.write.BatchWrite;
import org.apache.spark.sql.connector.write.DataWriterFactory;
import org.apache.spark.sql.connector.write.PhysicalWriteInfo;
import org.apache.spark.sql.connector.write.WriterCommitMessage;
import org.apache.spark.sql.types.StructType;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * A batch job's write into folders {@code k=v}, each of them a dataset.
 *
 * <ol>
 *   <li>Tasks put into sessions, one for each folder, which whoever comes first begins. Nothing of it can be seen.
 *   <li>As tasks commit, the driver learns of the sessions and keeps them alive.
 *   <li>{@link #commit} publishes all of them in one step, naming the attempts that count. An overwrite that is not dynamic also
 *       empties the folders that no row came to, in the same step.
 * </ol>
 */
final class FoldersBatchWrite implements BatchWrite {
  private static final Logger LOG = LoggerFactory.getLogger(FoldersBatchWrite.class);

  /** A number that no attempt of a task has. */
  private static final long EMPTYING = SessionKeeper.NO_TASK + 1;

  /** How long a folder's session lives without a writer unless a user says: an attempt that takes over may get to the folder late. */
  private static final String SESSION_TIMEOUT = "1h";

  private final Options options;
  private final StructType rows;
  private final String mode;
  private final String job;
  private Schema schema;
  private FolderTarget target;
  private SessionKeeper keeper;

  /** {@code rows}: as they come, with the texts of their folders behind the columns that are written. */
  FoldersBatchWrite(Options options, StructType rows, String mode, String job) {
    this.options = options;
    this.rows = rows;
    this.mode = mode;
    this.job = job;
  }

  @Override
  public DataWriterFactory createBatchWriterFactory(PhysicalWriteInfo info) {
    List<String> columns = options.folders();
    try (Connection server = Connection.open(options.server())) {
      boolean exists = Folders.check(server, options.path(), columns);
      if (exists && mode.equals("create")) {
        throw new ForebayException(
            Status.Code.ALREADY_EXISTS.name(), options.path() + ": exists already; write with mode append or overwrite");
      }
      StructType written = new StructType(Arrays.copyOf(rows.fields(), rows.length() - columns.size()));
      boolean joins = mode.equals("append") || options.dynamic();
      schema = joins && exists ? WriteSchema.joining(server, options.path(), written, columns) : ArrowTypes.toArrow(written);
    } catch (IOException e) {
      throw new UncheckedIOException(e.getMessage(), e);
    }
    Map<String, String> session = new HashMap<>(options.session());
    session.putIfAbsent("timeout", SESSION_TIMEOUT);
    target = new FolderTarget(options.path(), columns, mode, session, job, "spark-" + UUID.randomUUID());
    keeper = new SessionKeeper(options.server(), schema, List.of(), job);
    return new FolderWriterFactory(options, target, schema, rows);
  }

  @Override
  public void onDataWriterCommit(WriterCommitMessage message) {
    keeper.add(((FolderCommit) message).folders());
  }

  @Override
  public void commit(WriterCommitMessage[] messages) {
    try {
      Map<String, Staged> staged = new TreeMap<>();
      for (WriterCommitMessage message : messages) {
        FolderCommit commit = (FolderCommit) message;
        keeper.add(commit.folders());
        for (PutTarget folder : commit.folders()) {
          Staged of = staged.computeIfAbsent(folder.path(), path -> new Staged(folder.session(), new ArrayList<>()));
          if (!of.session().equals(folder.session())) {
            throw new IllegalStateException("tasks of one job have put into two sessions of " + folder.path());
          }
          of.tasks().add(commit.name(job));
        }
      }
      if (mode.equals("overwrite") && !options.dynamic()) {
        empty(staged);
      }
      keeper.close();
      publish(staged);
    } catch (IOException e) {
      throw new UncheckedIOException(e.getMessage(), e);
    }
  }

  /**
   * A session that is ready.
   *
   * @param session its id
   * @param tasks the attempts that count
   */
  private record Staged(String session, List<Command> tasks) {
    Command command() {
      return Command.empty().with("session", session).withAll("tasks", tasks);
    }
  }

  /** Stages an overwrite with no rows, of the schema that is written, for each folder that no row came to. */
  private void empty(Map<String, Staged> staged) throws IOException {
    try (Connection server = Connection.open(options.server());
        VectorSchemaRoot root = VectorSchemaRoot.create(schema, server.allocator())) {
      for (String folder : Folders.all(server, options.path(), options.folders(), FolderWriter.FOLDERS_MAX)) {
        if (staged.containsKey(folder)) {
          continue;
        }
        PutTarget session = target.begin(server, folder);
        keeper.add(List.of(session));
        Put.begin(server, session.descriptor(EMPTYING, 0), root, "emptying " + folder).end();
        staged.put(folder, new Staged(session.session(), List.of(PutTarget.task(job, EMPTYING, 0))));
      }
    }
  }

  private void publish(Map<String, Staged> staged) throws IOException {
    List<Staged> all = List.copyOf(staged.values());
    if (all.isEmpty()) {
      LOG.info("no rows for {}: there is nothing to publish", options.path());
      return;
    }
    if (all.size() > FolderWriter.FOLDERS_MAX) {
      throw new ForebayException(
          Status.Code.INVALID_ARGUMENT.name(),
          options.path() + ": " + all.size() + " folders in one job, and " + FolderWriter.FOLDERS_MAX
              + " can appear in one step; write them by several jobs, with conditions on " + options.folders().get(0));
    }
    Command publish = all.get(0).command().with("success_file", options.successFile());
    publish.withAll("with", all.subList(1, all.size()).stream().map(Staged::command).toList());
    checkSize(publish, options.path());
    JsonNode answer = WriteSession.ask(options, all.get(0).session(), publish);
    LOG.info("{} folders of {} published, the first as version {}", all.size(), options.path(), answer.path("version").asLong());
  }

  /** Names of attempts are what grows: one of each task in each folder. */
  static void checkSize(Command publish, String path) {
    int bytes = publish.bytes().length;
    if (bytes > WriteSession.BODY_BYTES_MAX) {
      throw new IllegalArgumentException(
          path + ": naming every task in every folder takes " + bytes + " bytes, and one publish takes " + WriteSession.BODY_BYTES_MAX
              + "; write with option distribution=rebalance, fewer tasks or fewer folders");
    }
  }

  @Override
  public void abort(WriterCommitMessage[] messages) {
    if (keeper == null) {
      return;
    }
    for (WriterCommitMessage message : messages) {
      if (message instanceof FolderCommit commit) {
        keeper.add(commit.folders());
      }
    }
    keeper.close();
    WriteSession.abort(options, keeper.sessions());
  }

  @Override
  public String toString() {
    return "forebay " + mode + " " + options.path() + " by " + String.join(", ", options.folders());
  }
}
