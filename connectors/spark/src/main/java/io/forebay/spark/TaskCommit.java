package io.forebay.spark;

import org.apache.spark.sql.connector.write.WriterCommitMessage;

/**
 * What a task tells the driver when it has ended.
 *
 * @param task the number of its partition
 * @param attempt Spark's id of the attempt, which no other one has
 * @param outcome what came of it
 * @param rows rows that it had
 */
record TaskCommit(int task, long attempt, Outcome outcome, long rows) implements WriterCommitMessage {
  /** What can come of an attempt. */
  enum Outcome {
    /** Its rows are in the session. */
    WROTE,
    /** It had no rows, and put nothing. */
    EMPTY,
    /** An earlier attempt of the task has ended well, unknown to Spark: that one's rows are in the session. */
    SUPERSEDED
  }

  Command name(String job) {
    return PutTarget.task(job, task, attempt);
  }
}
