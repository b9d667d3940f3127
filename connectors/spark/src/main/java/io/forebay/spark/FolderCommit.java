package io.forebay.spark;

import java.util.List;
import org.apache.spark.sql.connector.write.WriterCommitMessage;

/**
 * What a task that writes folders tells the driver when it has ended.
 *
 * @param task the number of its partition
 * @param attempt Spark's id of the attempt, which no other one has
 * @param rows rows that it had
 * @param folders where it has put
 */
record FolderCommit(int task, long attempt, long rows, List<PutTarget> folders) implements WriterCommitMessage {
  Command name(String job) {
    return PutTarget.task(job, FolderTarget.number(task, attempt), attempt);
  }
}
