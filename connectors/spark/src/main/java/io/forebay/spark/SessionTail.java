package io.forebay.spark;

import com.fasterxml.jackson.databind.JsonNode;
import io.grpc.Status;
import java.io.IOException;

/**
 * The live end of a stream: committed tasks of a session that is not published yet. A session delivers its parts in one order and keeps to
 * it after its publish; so a stream takes them as they come, and when the session is published goes on with the version that it made.
 *
 * <p>If the session is aborted, rows were read that do not count. The stream then fails: only its owner knows what to do with them.
 */
final class SessionTail {
  private final String path;

  SessionTail(String path) {
    this.path = path;
  }

  /** Behind everything published: what a live session that appends has delivered, if there is one. */
  VersionOffset begin(Connection server, VersionOffset start) throws IOException {
    Note followed;
    try {
      followed = Note.of(server.info(Command.dataset(path).with("follow", true)));
    } catch (ForebayException e) {
      if (e.is(Status.Code.NOT_FOUND)) {
        return start;
      }
      throw e;
    }
    // A session that overwrites is described without a version: it is read when it is published.
    boolean appends = followed.version() == null ? start.version() == 0 : followed.version() == start.version();
    if (!followed.live() || followed.session() == null || !appends) {
      return start;
    }
    try {
      long delivered = poll(server, followed.session()).parts();
      return delivered == 0 ? start : start.with(followed.session(), delivered);
    } catch (ForebayException e) {
      if (isGone(e)) {
        return start;
      }
      throw e;
    }
  }

  private Note poll(Connection server, String session) throws ForebayException {
    return Note.of(server.poll(Command.dataset(path).with("session", session)));
  }

  private static boolean isGone(ForebayException error) {
    return error.is(Status.Code.ABORTED) || error.is(Status.Code.NOT_FOUND);
  }

  /** After {@code start}, which is within a session: more of it, or the version that it became. */
  VersionOffset after(Connection server, VersionOffset start) throws IOException {
    Note session = session(server, start);
    if (session.parts() > start.taken()) {
      return start.with(start.session(), session.parts());
    }
    return session.live() ? start : becomes(server, start);
  }

  private Note session(Connection server, VersionOffset start) throws IOException {
    try {
      return poll(server, start.session());
    } catch (ForebayException e) {
      if (!isGone(e)) {
        throw e;
      }
      throw new IllegalStateException(
          "session "
              + start.session()
              + " of "
              + path
              + " has come to nothing after the stream read "
              + start.taken()
              + " of its tasks; those rows do not count. Begin anew with a new checkpoint, or without option follow ("
              + e.getMessage()
              + ")",
          e);
    }
  }

  /** The version that the session, read to its end, made. */
  private VersionOffset becomes(Connection server, VersionOffset start) throws IOException {
    for (JsonNode version : server.act("versions", Command.empty().with("path", path))) {
      if (start.session().equals(version.path("session").textValue())) {
        Note note = Note.of(server.info(Command.dataset(path).with("version", (Long) version.path("version").asLong())));
        return new VersionOffset(note.version(), note.parts(), note.batches(), start.base());
      }
    }
    throw new IllegalStateException(
        "the version that session "
            + start.session()
            + " of "
            + path
            + " became is not kept any more; keep more versions, or ask for micro-batches more often than so many are published");
  }
}
