package io.forebay.spark;

import java.io.IOException;
import java.io.Serializable;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import org.apache.spark.unsafe.types.UTF8String;

/**
 * Where the tasks of one job put that writes folders: each folder has a session, which whoever comes first begins.
 *
 * <p>An attempt of a task is one of all its folders or of none. So the server is not to choose among attempts, folder by folder: each
 * is a task of its own for it, and the publish names those that count.
 *
 * @param root the directory of the folders
 * @param columns the columns of the folders
 * @param mode what a publish does with what is in a folder
 * @param session keys that sessions are begun with
 * @param job the job's name
 * @param write what no other write has: by it the job's tasks find each other's sessions
 */
record FolderTarget(String root, List<String> columns, String mode, Map<String, String> session, String job, String write)
    implements Serializable {
  /** Bits of an attempt's number. */
  private static final int ATTEMPT_BITS = 32;

  /** Below 2^53, which is as far as every reader of JSON counts. */
  private static final int TASKS_MAX = 1 << 21;

  FolderTarget {
    session = new HashMap<>(session);
  }

  String path(List<UTF8String> values) {
    return Folders.path(root, columns, values);
  }

  /** The session of a folder. */
  PutTarget begin(Connection server, String folder) throws IOException {
    Command begin = Command.empty().with("path", folder).with("mode", mode).with("job", job).with("token", write);
    session.forEach(begin::with);
    return new PutTarget(folder, server.actOne("begin", begin).path("session").asText(), job);
  }

  /** The number of an attempt, in the order of tasks. */
  static long number(int task, long attempt) {
    if (task >= TASKS_MAX || attempt >> ATTEMPT_BITS != 0) {
      throw new IllegalArgumentException("task " + task + ", attempt " + attempt + ": more than can be told apart; write by fewer tasks");
    }
    return (long) task << ATTEMPT_BITS | attempt;
  }
}
