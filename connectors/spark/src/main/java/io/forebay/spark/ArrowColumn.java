package io.forebay.spark;

import org.apache.arrow.vector.FieldVector;
import org.apache.spark.sql.types.DataType;
import org.apache.spark.sql.types.Decimal;
import org.apache.spark.sql.vectorized.ColumnVector;
import org.apache.spark.sql.vectorized.ColumnarArray;
import org.apache.spark.sql.vectorized.ColumnarMap;
import org.apache.spark.unsafe.Platform;
import org.apache.spark.unsafe.types.UTF8String;

/**
 * A column of a batch as Spark reads it, straight from the Arrow buffers: nothing is copied but what Spark asks for. {@link ArrowColumns}
 * has one for each Arrow type; a getter that a type has no values for is refused here.
 *
 * <p>It lives as long as the batch, whose owner frees the buffers.
 */
abstract class ArrowColumn extends ColumnVector {
  private final int nulls;
  private final long validity;

  ArrowColumn(DataType type, FieldVector vector) {
    super(type);
    this.nulls = vector.getNullCount();
    this.validity = nulls == 0 ? 0 : vector.getValidityBufferAddress();
  }

  /** For types without a validity buffer. */
  ArrowColumn(DataType type, int nulls) {
    super(type);
    this.nulls = nulls;
    this.validity = 0;
  }

  static boolean bit(long address, int at) {
    return (Platform.getByte(null, address + (at >> 3)) >> (at & 7) & 1) == 1;
  }

  @Override
  public boolean isNullAt(int row) {
    return nulls != 0 && !bit(validity, row);
  }

  @Override
  public boolean hasNull() {
    return nulls > 0;
  }

  @Override
  public int numNulls() {
    return nulls;
  }

  @Override
  public void close() {
    // The batch's owner frees the buffers.
  }

  private UnsupportedOperationException no(String what) {
    return new UnsupportedOperationException("a column of type " + dataType().simpleString() + " has no " + what);
  }

  @Override
  public boolean getBoolean(int row) {
    throw no("boolean");
  }

  @Override
  public byte getByte(int row) {
    throw no("byte");
  }

  @Override
  public short getShort(int row) {
    throw no("short");
  }

  @Override
  public int getInt(int row) {
    throw no("int");
  }

  @Override
  public long getLong(int row) {
    throw no("long");
  }

  @Override
  public float getFloat(int row) {
    throw no("float");
  }

  @Override
  public double getDouble(int row) {
    throw no("double");
  }

  @Override
  public ColumnarArray getArray(int row) {
    throw no("array");
  }

  @Override
  public ColumnarMap getMap(int row) {
    throw no("map");
  }

  @Override
  public Decimal getDecimal(int row, int precision, int scale) {
    throw no("decimal");
  }

  @Override
  public UTF8String getUTF8String(int row) {
    throw no("string");
  }

  @Override
  public byte[] getBinary(int row) {
    throw no("binary");
  }

  @Override
  public ColumnVector getChild(int ordinal) {
    throw no("child");
  }
}
