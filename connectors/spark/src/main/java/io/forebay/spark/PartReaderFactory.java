package io.forebay.spark;

import java.io.IOException;
import java.io.UncheckedIOException;
import org.apache.spark.sql.catalyst.InternalRow;
import org.apache.spark.sql.connector.read.InputPartition;
import org.apache.spark.sql.connector.read.PartitionReader;
import org.apache.spark.sql.connector.read.PartitionReaderFactory;
import org.apache.spark.sql.types.StructType;
import org.apache.spark.sql.vectorized.ColumnarBatch;

/** Makes the readers of parts on executors. They read batches, never rows. */
final class PartReaderFactory implements PartitionReaderFactory {
  private static final long serialVersionUID = 1;

  private final Server server;
  private final StructType schema;
  private final FolderTypes folders;

  /** {@code schema}: of the columns that are read, some of which may be of folders. */
  PartReaderFactory(Server server, StructType schema) {
    this.server = server;
    this.schema = schema;
    this.folders = FolderTypes.ofSession();
  }

  @Override
  public boolean supportColumnarReads(InputPartition partition) {
    return true;
  }

  @Override
  public PartitionReader<ColumnarBatch> createColumnarReader(InputPartition partition) {
    try {
      return PartReader.open(server, (PartPartition) partition, schema, folders);
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
  }

  @Override
  public PartitionReader<InternalRow> createReader(InputPartition partition) {
    throw new UnsupportedOperationException("parts are read as batches");
  }
}
