package io.forebay.spark;

import com.fasterxml.jackson.databind.JsonNode;
import java.io.IOException;
import org.apache.spark.sql.connector.read.streaming.Offset;

/**
 * How far a stream has read. Versions only grow between overwrites, part after part, so that what lies between two offsets is parts of
 * the later one's version, whatever is published after it.
 */
final class VersionOffset extends Offset {
  /** Before everything. */
  static final VersionOffset BEGINNING = new VersionOffset(0, 0, 0, 0);

  private final long version;
  private final long parts;
  private final long batches;
  private final long base;
  private final String session;
  private final long taken;

  VersionOffset(long version, long parts, long batches, long base) {
    this(version, parts, batches, base, null, 0);
  }

  private VersionOffset(long version, long parts, long batches, long base, String session, long taken) {
    this.version = version;
    this.parts = parts;
    this.batches = batches;
    this.base = base;
    this.session = session;
    this.taken = taken;
  }

  /** The same, and behind it the first parts that a session has delivered, which the version does not have. */
  VersionOffset with(String live, long delivered) {
    return new VersionOffset(version, parts, batches, base, live, delivered);
  }

  /** The version whose parts are counted. */
  long version() {
    return version;
  }

  /** Parts of it that were read. */
  long parts() {
    return parts;
  }

  /** Batches of it that were read: {@code VERSION:BATCHES} is the resume token of any Flight client that goes on from here. */
  long batches() {
    return batches;
  }

  /** The version that the stream began anew with, after an overwrite; 0 before any. */
  long base() {
    return base;
  }

  /** The session of which something was read before its publish, or {@code null}. */
  String session() {
    return session;
  }

  /** Parts of that session that were read, in the order in which it delivers them. */
  long taken() {
    return taken;
  }

  /** The first part after this that {@code end} has. */
  long firstPart(VersionOffset end) {
    return end.base == base ? parts : 0;
  }

  /** Where those parts of {@code end} stop that were not read before: a session's parts are the last of the version that it made. */
  long lastPart(VersionOffset end) {
    return session == null ? end.parts : end.parts - taken;
  }

  static VersionOffset parse(String json) {
    try {
      JsonNode node = Command.JSON.readTree(json);
      for (String key : new String[] {"version", "parts", "batches", "base"}) {
        if (!node.path(key).isIntegralNumber() || node.path(key).asLong() < 0) {
          throw new IllegalArgumentException("the offset " + json + " has no number \"" + key + "\"; the checkpoint is of another source");
        }
      }
      return new VersionOffset(
          node.path("version").asLong(),
          node.path("parts").asLong(),
          node.path("batches").asLong(),
          node.path("base").asLong(),
          node.path("session").textValue(),
          node.path("taken").asLong());
    } catch (IOException e) {
      throw new IllegalArgumentException("the offset " + json + " is not JSON; the checkpoint is of another source", e);
    }
  }

  @Override
  public String json() {
    Command keys = Command.empty().with("version", (Long) version).with("parts", (Long) parts).with("batches", (Long) batches);
    return keys.with("base", (Long) base).with("session", session).with("taken", session == null ? null : (Long) taken).toString();
  }
}
