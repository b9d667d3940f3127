package io.forebay.spark;

import java.util.List;
import org.apache.arrow.memory.BufferAllocator;
import org.apache.arrow.vector.BaseFixedWidthVector;
import org.apache.arrow.vector.BaseVariableWidthVector;
import org.apache.arrow.vector.FieldVector;
import org.apache.arrow.vector.VectorSchemaRoot;
import org.apache.arrow.vector.types.pojo.Schema;
import org.apache.spark.sql.catalyst.InternalRow;
import org.apache.spark.sql.catalyst.expressions.UnsafeRow;
import org.apache.spark.sql.types.StructType;

/** Gathers rows into one Arrow batch after the other, each bounded by rows and by bytes. */
final class RowBatch implements AutoCloseable {
  /** A batch ends with the row that reaches this. One row may be larger. */
  static final long BYTES_MAX = 8L << 20;

  private final VectorSchemaRoot root;
  private final RowAppender[] columns;
  private final int rowsMax;
  private final int rowBytes;
  private int rows;
  private long bytes;

  RowBatch(BufferAllocator allocator, Schema schema, StructType type, int rowsMax) {
    this.root = VectorSchemaRoot.create(schema, allocator);
    this.rowsMax = rowsMax;
    this.rowBytes = type.defaultSize();
    this.columns = new RowAppender[schema.getFields().size()];
    for (int k = 0; k < columns.length; k++) {
      FieldVector vector = root.getVector(k);
      columns[k] = RowAppender.of(vector, type.fields()[k].dataType(), vector.getName());
    }
  }

  void add(InternalRow row) {
    for (int k = 0; k < columns.length; k++) {
      columns[k].append(row, k, rows);
    }
    rows++;
    bytes += row instanceof UnsafeRow unsafe ? unsafe.getSizeInBytes() : rowBytes;
  }

  boolean isFull() {
    return rows >= rowsMax || bytes >= BYTES_MAX;
  }

  int rows() {
    return rows;
  }

  /** The rows so far, as Arrow has them. */
  VectorSchemaRoot finish() {
    root.setRowCount(rows);
    return root;
  }

  /** The root without rows, for its schema. */
  VectorSchemaRoot root() {
    return root;
  }

  /** Begins the next batch in memory of its own: what was finished may still be on its way. It is taken to be as large as the last. */
  void clear() {
    List<FieldVector> vectors = root.getFieldVectors();
    long[] texts = vectors.stream().mapToLong(v -> v instanceof BaseVariableWidthVector text ? text.sizeOfValueBuffer() : 0).toArray();
    root.clear();
    for (int k = 0; k < texts.length; k++) {
      if (vectors.get(k) instanceof BaseFixedWidthVector fixed) {
        fixed.allocateNew(rows);
      } else if (vectors.get(k) instanceof BaseVariableWidthVector text) {
        text.allocateNew(texts[k], rows);
      }
    }
    rows = 0;
    bytes = 0;
  }

  @Override
  public void close() {
    root.close();
  }
}
