package io.forebay.spark;

import org.apache.spark.sql.connector.write.BatchWrite;
import org.apache.spark.sql.connector.write.LogicalWriteInfo;
import org.apache.spark.sql.connector.write.SupportsTruncate;
import org.apache.spark.sql.connector.write.Write;
import org.apache.spark.sql.connector.write.WriteBuilder;
import org.apache.spark.sql.connector.write.streaming.StreamingWrite;
import org.apache.spark.sql.types.StructType;

/** Takes in how a query wants to write. Output mode {@code complete} truncates, which here is mode overwrite. */
final class SessionWriteBuilder implements SupportsTruncate {
  private final Options options;
  private final StructType schema;
  private final String query;
  private boolean truncate;

  SessionWriteBuilder(Options options, LogicalWriteInfo info) {
    this.options = options;
    this.schema = info.schema();
    this.query = info.queryId();
  }

  @Override
  public WriteBuilder truncate() {
    truncate = true;
    return this;
  }

  @Override
  public Write build() {
    String mode = truncate ? "overwrite" : options.mode() == null ? "append" : options.mode();
    if (!options.folders().isEmpty()) {
      return new FoldersWrite(options, schema, mode, options.job() == null ? query : options.job());
    }
    return new Write() {
      @Override
      public String description() {
        return "forebay " + mode + " " + options.path();
      }

      @Override
      public String toString() {
        return description();
      }

      @Override
      public BatchWrite toBatch() {
        return new SessionBatchWrite(options, schema, mode, options.job() == null ? query : options.job());
      }

      @Override
      public StreamingWrite toStreaming() {
        return new SessionStreamingWrite(options, schema, mode, query);
      }
    };
  }
}
