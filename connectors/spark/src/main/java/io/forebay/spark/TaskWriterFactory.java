package io.forebay.spark;

import org.apache.arrow.vector.types.pojo.Schema;
import org.apache.spark.sql.catalyst.InternalRow;
import org.apache.spark.sql.connector.write.DataWriter;
import org.apache.spark.sql.connector.write.DataWriterFactory;
import org.apache.spark.sql.connector.write.streaming.StreamingDataWriterFactory;
import org.apache.spark.sql.types.StructType;

/** What executors get to know of a write. */
final class TaskWriterFactory implements DataWriterFactory, StreamingDataWriterFactory {
  private static final long serialVersionUID = 1;

  private final Server server;
  private final PutTarget target;
  private final StructType rows;
  private final byte[] schema;
  private final int batchRows;

  TaskWriterFactory(Options options, WriteSession session, StructType rows) {
    this.server = options.server();
    this.target = session.target();
    this.rows = rows;
    this.schema = session.schema().serializeAsMessage();
    this.batchRows = options.batchRows();
  }

  @Override
  public DataWriter<InternalRow> createWriter(int partition, long attempt) {
    Schema arrow = Schema.deserializeMessage(java.nio.ByteBuffer.wrap(schema));
    return new TaskWriter(server, target, arrow, rows, batchRows, partition, attempt);
  }

  @Override
  public DataWriter<InternalRow> createWriter(int partition, long attempt, long epoch) {
    return createWriter(partition, attempt);
  }
}
