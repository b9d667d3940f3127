package io.forebay.spark;

import org.apache.spark.sql.types.DataType;
import org.apache.spark.sql.types.Decimal;
import org.apache.spark.sql.vectorized.ColumnVector;
import org.apache.spark.unsafe.types.UTF8String;

/** A column of folders' texts, read as values of the type that the table has for them. Rows of a folder have one text. */
final class FolderColumn extends ArrowColumn {
  private final String name;
  private final ColumnVector texts;
  private final FolderTypes types;
  private UTF8String last;
  private Object value;

  FolderColumn(String name, DataType type, ColumnVector texts, FolderTypes types) {
    super(type, texts.numNulls());
    this.name = name;
    this.texts = texts;
    this.types = types;
  }

  @Override
  public boolean isNullAt(int row) {
    return texts.isNullAt(row);
  }

  private Object value(int row) {
    UTF8String text = texts.getUTF8String(row);
    if (!text.equals(last)) {
      try {
        value = types.value(text.toString(), dataType());
      } catch (IllegalArgumentException e) {
        throw new IllegalStateException(
            "folder " + name + "=" + text + " is no value of type " + dataType().simpleString() + ", which its column was read as; load the"
                + " table again if the folder has come since, or say a schema in which the column is a string",
            e);
      }
      last = text;
    }
    return value;
  }

  @Override
  public boolean getBoolean(int row) {
    return (Boolean) value(row);
  }

  @Override
  public byte getByte(int row) {
    return (Byte) value(row);
  }

  @Override
  public short getShort(int row) {
    return (Short) value(row);
  }

  @Override
  public int getInt(int row) {
    return (Integer) value(row);
  }

  @Override
  public long getLong(int row) {
    return (Long) value(row);
  }

  @Override
  public float getFloat(int row) {
    return (Float) value(row);
  }

  @Override
  public double getDouble(int row) {
    return (Double) value(row);
  }

  @Override
  public Decimal getDecimal(int row, int precision, int scale) {
    return (Decimal) value(row);
  }
}
