package io.forebay.spark;

import java.util.stream.IntStream;
import org.apache.spark.sql.connector.distributions.Distribution;
import org.apache.spark.sql.connector.distributions.Distributions;
import org.apache.spark.sql.connector.expressions.Expression;
import org.apache.spark.sql.connector.expressions.Expressions;
import org.apache.spark.sql.connector.expressions.SortDirection;
import org.apache.spark.sql.connector.expressions.SortOrder;
import org.apache.spark.sql.connector.write.BatchWrite;
import org.apache.spark.sql.connector.write.RequiresDistributionAndOrdering;
import org.apache.spark.sql.types.StructType;

/**
 * A write into folders: rows of a folder come to one task where that is not too much for one, so that a folder gets few parts, and each
 * task has them sorted by folders, so that it writes one after the other.
 */
final class FoldersWrite implements RequiresDistributionAndOrdering {
  private final Options options;
  private final StructType rows;
  private final String mode;
  private final String job;

  FoldersWrite(Options options, StructType rows, String mode, String job) {
    this.options = options;
    this.rows = rows;
    this.mode = mode;
    this.job = job;
  }

  /** The column of the texts that column {@code k} gives to folders. */
  static String text(int k) {
    return "__forebay_folder_" + k;
  }

  private Expression[] texts() {
    return IntStream.range(0, options.folders().size()).mapToObj(k -> Expressions.column(text(k))).toArray(Expression[]::new);
  }

  @Override
  public Distribution requiredDistribution() {
    return options.rebalance() ? Distributions.clustered(texts()) : Distributions.unspecified();
  }

  /** Then Spark may share a large folder out to several tasks. */
  @Override
  public boolean distributionStrictlyRequired() {
    return false;
  }

  @Override
  public SortOrder[] requiredOrdering() {
    return java.util.Arrays.stream(texts()).map(text -> Expressions.sort(text, SortDirection.ASCENDING)).toArray(SortOrder[]::new);
  }

  @Override
  public BatchWrite toBatch() {
    return new FoldersBatchWrite(options, rows, mode, job);
  }

  @Override
  public String description() {
    return "forebay " + mode + " " + options.path() + " by " + String.join(", ", options.folders());
  }

  @Override
  public String toString() {
    return description();
  }
}
