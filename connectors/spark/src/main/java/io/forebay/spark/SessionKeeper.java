package io.forebay.spark;

import io.grpc.Status;
import java.io.IOException;
import java.util.ArrayList;
import java.util.Iterator;
import java.util.LinkedHashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import org.apache.arrow.vector.VectorSchemaRoot;
import org.apache.arrow.vector.types.pojo.Schema;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * Keeps sessions of one schema alive as long as the driver lives, by one thread for all: a session without a writer is aborted after its
 * timeout, and the stages before the one that writes may well take longer. It is a writer that never ends: a call that names a task of no
 * job, puts nothing and is taken back.
 */
final class SessionKeeper implements AutoCloseable {
  private static final Logger LOG = LoggerFactory.getLogger(SessionKeeper.class);

  /** A number that no task of Spark has. */
  static final long NO_TASK = Integer.MAX_VALUE + 1L;

  private static final long LOOK_MILLIS = 500;

  private final Server server;
  private final Schema schema;
  private final Set<PutTarget> wanted = new LinkedHashSet<>();
  private final CountDownLatch closing = new CountDownLatch(1);
  private final Thread thread;

  /** {@code sessions}: those to keep from the beginning. */
  SessionKeeper(Server server, Schema schema, List<PutTarget> sessions, String job) {
    this.server = server;
    this.schema = schema;
    wanted.addAll(sessions);
    this.thread = new Thread(this::keep, "forebay-sessions-" + job);
    thread.setDaemon(true);
    thread.start();
  }

  /** Sessions to keep from now on. */
  void add(List<PutTarget> sessions) {
    synchronized (wanted) {
      wanted.addAll(sessions);
    }
  }

  /** All sessions so far. */
  List<PutTarget> sessions() {
    synchronized (wanted) {
      return List.copyOf(wanted);
    }
  }

  private void keep() {
    Set<PutTarget> ended = new LinkedHashSet<>();
    do {
      try (Holds holds = new Holds()) {
        do {
          holds.begin(sessions(), ended);
        } while (!isClosing(LOOK_MILLIS) && !holds.isBroken(ended));
      } catch (IOException | RuntimeException e) {
        LOG.debug("sessions could not be held open; trying again", e);
      }
    } while (!isClosing(LOOK_MILLIS));
  }

  private boolean isClosing(long millis) {
    try {
      return closing.await(millis, TimeUnit.MILLISECONDS);
    } catch (InterruptedException e) {
      return true;
    }
  }

  /** Lets go of the sessions. */
  @Override
  public void close() {
    closing.countDown();
    try {
      thread.join(TimeUnit.SECONDS.toMillis(15));
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
    }
  }

  /** A call for each session. */
  private final class Holds implements AutoCloseable {
    private final List<Connection> connections = new ArrayList<>();
    private final List<VectorSchemaRoot> roots = new ArrayList<>();
    private final Map<PutTarget, Put> puts = new LinkedHashMap<>();

    void begin(List<PutTarget> sessions, Set<PutTarget> ended) throws IOException {
      for (PutTarget session : sessions) {
        if (puts.containsKey(session) || ended.contains(session)) {
          continue;
        }
        if (puts.size() % FolderWriter.CALLS == 0) {
          Connection connection = Connection.open(server);
          connections.add(connection);
          roots.add(VectorSchemaRoot.create(schema, connection.allocator()));
        }
        int last = connections.size() - 1;
        String what = "holding session " + session.session() + " open";
        puts.put(session, Put.begin(connections.get(last), session.descriptor(NO_TASK, 0), roots.get(last), what));
      }
    }

    /** Whether a call was cut off that has a purpose still. Sessions that are no more are noted. */
    boolean isBroken(Set<PutTarget> ended) throws IOException {
      for (Iterator<Map.Entry<PutTarget, Put>> each = puts.entrySet().iterator(); each.hasNext(); ) {
        Map.Entry<PutTarget, Put> hold = each.next();
        if (!hold.getValue().isOver()) {
          continue;
        }
        try {
          hold.getValue().result();
        } catch (ForebayException e) {
          if (!e.isPassing() && !e.is(Status.Code.RESOURCE_EXHAUSTED) && !e.is(Status.Code.CANCELLED)) {
            LOG.debug("session {} can not be held open", hold.getKey().session(), e);
            ended.add(hold.getKey());
            continue;
          }
        }
        return true;
      }
      return false;
    }

    @Override
    public void close() {
      puts.values().forEach(Put::cancel);
      roots.forEach(VectorSchemaRoot::close);
      connections.forEach(Connection::close);
    }
  }
}
