package io.forebay.spark;

import io.grpc.Status;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.util.Arrays;
import java.util.List;
import java.util.concurrent.TimeUnit;
import org.apache.arrow.flight.CallOptions;
import org.apache.arrow.flight.FlightInfo;
import org.apache.arrow.flight.FlightStream;
import org.apache.spark.sql.connector.read.InputPartition;
import org.apache.spark.sql.connector.read.PartitionReaderFactory;
import org.apache.spark.sql.connector.read.streaming.MicroBatchStream;
import org.apache.spark.sql.connector.read.streaming.Offset;
import org.apache.spark.sql.connector.read.streaming.ReadLimit;
import org.apache.spark.sql.connector.read.streaming.SupportsTriggerAvailableNow;
import org.apache.spark.sql.types.StructType;

/**
 * A dataset that is published again and again, as a stream: each micro-batch has the parts that came since the last one. Unless it is to
 * follow live sessions ({@link SessionTail}), only what is published is read, so nothing has to be taken back.
 *
 * <p>An overwrite ends what the offsets count in. By option the stream then fails, which is the default, or begins anew with the version
 * that it finds; the offsets say which it did, so that a restart does the same.
 */
final class VersionStream implements MicroBatchStream, SupportsTriggerAvailableNow {
  private static final int CHECK_SECONDS = 15;

  private final Options options;
  private final StructType full;
  private final StructType read;
  private final SessionTail tail;
  private boolean pinned;
  private FlightInfo pin;

  VersionStream(Options options, StructType full, StructType read) {
    this.options = options;
    this.full = full;
    this.read = read;
    this.tail = new SessionTail(options.path());
  }

  /** Everything there is, or what came after {@code version}. */
  @Override
  public Offset initialOffset() {
    if (options.version() == null) {
      return VersionOffset.BEGINNING;
    }
    return asking(server -> offset(Note.of(server.info(version(options.version()))), 0));
  }

  private Command version(Long version) {
    return Command.dataset(options.path()).with("version", version);
  }

  private static VersionOffset offset(Note note, long base) {
    return new VersionOffset(note.version(), note.parts(), note.batches(), base);
  }

  @Override
  public void prepareForTriggerAvailableNow() {
    pin = asking(this::head);
    pinned = true;
  }

  @Override
  public Offset latestOffset() {
    throw new UnsupportedOperationException("latestOffset(Offset, ReadLimit) is called instead");
  }

  @Override
  public Offset latestOffset(Offset begin, ReadLimit limit) {
    VersionOffset start = (VersionOffset) begin;
    return asking(
        server -> {
          if (start.session() != null) {
            VersionOffset end = tail.after(server, start);
            if (end.session() == null && start.version() > 0 && !goesOn(server, start)) {
              throw overwritten(start, end.version());
            }
            return end;
          }
          VersionOffset published = latest(server, start);
          return published.equals(start) && options.follow() && !pinned ? tail.begin(server, start) : published;
        });
  }

  private VersionOffset latest(Connection server, VersionOffset start) throws IOException {
    while (true) {
      FlightInfo info = pinned ? pin : head(server);
      if (info == null) {
        return start;
      }
      Note note = Note.of(info);
      if (note.version() == null) {
        throw new IllegalArgumentException(
            options.path() + " holds files that nothing published, which have no versions; a stream reads what sessions publish");
      }
      if (start.version() == 0 || note.version() <= start.version()) {
        return start.version() == 0 ? offset(note, 0) : start;
      }
      boolean goesOn = goesOn(server, start);
      // The answer is about the head; it is about this version if that has been the head all the time.
      FlightInfo after = head(server);
      if (!pinned && (after == null || !note.version().equals(Note.of(after).version()))) {
        continue;
      }
      if (!goesOn && !options.restart()) {
        throw overwritten(start, note.version());
      }
      return offset(note, goesOn ? start.base() : note.version());
    }
  }

  private IllegalStateException overwritten(VersionOffset start, long version) {
    return new IllegalStateException(
        options.path()
            + " was overwritten between version "
            + start.version()
            + ", which the stream has read, and version "
            + version
            + "; option onOverwrite=restart reads it from its beginning, a new checkpoint does too");
  }

  /** What is published, or {@code null}. */
  private FlightInfo head(Connection server) throws IOException {
    try {
      return server.info(Command.dataset(options.path()));
    } catch (ForebayException e) {
      if (e.is(Status.Code.NOT_FOUND)) {
        return null;
      }
      throw e;
    }
  }

  /** Whether the head begins with everything that was read: a follower that resumes there is refused otherwise. */
  private boolean goesOn(Connection server, VersionOffset start) throws IOException {
    Command resume = Command.dataset(options.path()).with("follow", true).with("from", start.version() + ":" + start.batches());
    try {
      byte[] ticket = server.info(resume).getEndpoints().get(0).getTicket().getBytes();
      try (FlightStream stream = server.get(ticket, CallOptions.timeout(CHECK_SECONDS, TimeUnit.SECONDS))) {
        stream.getRoot();
      }
      return true;
    } catch (Exception e) {
      ForebayException error = ForebayException.of("asking whether version " + start.version() + " was overwritten", e);
      if (error.is(Status.Code.FAILED_PRECONDITION)) {
        return false;
      }
      throw error;
    }
  }

  @Override
  public InputPartition[] planInputPartitions(Offset begin, Offset finish) {
    VersionOffset start = (VersionOffset) begin;
    VersionOffset end = (VersionOffset) finish;
    if (end.session() != null) {
      int first = start.session() == null ? 0 : Math.toIntExact(start.taken());
      Command session = columns(Command.dataset(options.path()).with("session", end.session()));
      return asking(server -> Arrays.copyOfRange(DatasetScan.partitions(server.poll(session), session), first, Math.toIntExact(end.taken())));
    }
    int from = Math.toIntExact(start.firstPart(end));
    int to = Math.toIntExact(start.lastPart(end));
    // Spark also asks for nothing: before there is anything, and where a session has become a version.
    return from >= to ? new InputPartition[0] : asking(server -> Arrays.copyOfRange(published(server, end), from, to));
  }

  /** The parts of a version. */
  private InputPartition[] published(Connection server, VersionOffset end) throws IOException {
    Command command = columns(version(end.version()));
    try {
      return DatasetScan.partitions(server.info(command), command);
    } catch (ForebayException e) {
      // Later versions begin with the same parts, unless they overwrote it.
      if (!e.is(Status.Code.NOT_FOUND) || !goesOn(server, end)) {
        throw e;
      }
      Command head = columns(Command.dataset(options.path()));
      return DatasetScan.partitions(server.info(head), head);
    }
  }

  private Command columns(Command command) {
    return command.with("columns", List.of(read.fieldNames()));
  }

  @Override
  public PartitionReaderFactory createReaderFactory() {
    return new PartReaderFactory(options.server(), read);
  }

  @Override
  public Offset deserializeOffset(String json) {
    return VersionOffset.parse(json);
  }

  @Override
  public void commit(Offset end) {
    // Versions are dropped by their own policy.
  }

  @Override
  public void stop() {
    // Nothing is held between micro-batches.
  }

  private interface Question<T> {
    T ask(Connection server) throws IOException;
  }

  private <T> T asking(Question<T> question) {
    try (Connection server = Connection.open(options.server())) {
      return question.ask(server);
    } catch (IOException e) {
      throw new UncheckedIOException(e.getMessage(), e);
    }
  }

  @Override
  public String toString() {
    return "forebay " + options.path() + " " + full.simpleString();
  }
}
