package io.forebay.spark;

import java.io.Serializable;
import org.apache.arrow.flight.FlightDescriptor;

/**
 * Where the tasks of one job put.
 *
 * @param path the dataset
 * @param session the session
 * @param job the job's name
 */
record PutTarget(String path, String session, String job) implements Serializable {
  /** The descriptor of one attempt of one task. */
  FlightDescriptor descriptor(long task, long attempt) {
    return Command.dataset(path).with("session", session).with("task", task(job, task, attempt)).descriptor();
  }

  /** An attempt, as the server names it. There is one stage: what Spark retries as another one are attempts of the same tasks. */
  static Command task(String job, long task, long attempt) {
    return Command.empty().with("job", job).with("stage", (Long) 0L).with("task", (Long) task).with("attempt", (Long) attempt);
  }
}
