package io.forebay.spark;

import org.apache.arrow.vector.types.pojo.Schema;
import org.apache.spark.sql.catalyst.InternalRow;
import org.apache.spark.sql.connector.write.DataWriter;
import org.apache.spark.sql.connector.write.DataWriterFactory;
import org.apache.spark.sql.types.StructType;

/** What executors get to know of a write of folders. */
final class FolderWriterFactory implements DataWriterFactory {
  private static final long serialVersionUID = 1;

  private final Server server;
  private final FolderTarget target;
  private final StructType rows;
  private final byte[] schema;
  private final int batchRows;

  FolderWriterFactory(Options options, FolderTarget target, Schema schema, StructType rows) {
    this.server = options.server();
    this.target = target;
    this.rows = rows;
    this.schema = schema.serializeAsMessage();
    this.batchRows = options.batchRows();
  }

  @Override
  public DataWriter<InternalRow> createWriter(int partition, long attempt) {
    Schema arrow = Schema.deserializeMessage(java.nio.ByteBuffer.wrap(schema));
    return new FolderWriter(server, target, arrow, rows, batchRows, partition, attempt);
  }
}
