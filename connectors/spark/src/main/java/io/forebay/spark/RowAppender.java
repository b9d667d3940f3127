package io.forebay.spark;

import java.nio.ByteBuffer;
import java.util.List;
import org.apache.arrow.vector.BigIntVector;
import org.apache.arrow.vector.BitVector;
import org.apache.arrow.vector.DateDayVector;
import org.apache.arrow.vector.DecimalVector;
import org.apache.arrow.vector.DurationVector;
import org.apache.arrow.vector.FieldVector;
import org.apache.arrow.vector.Float4Vector;
import org.apache.arrow.vector.Float8Vector;
import org.apache.arrow.vector.IntVector;
import org.apache.arrow.vector.IntervalYearVector;
import org.apache.arrow.vector.LargeVarBinaryVector;
import org.apache.arrow.vector.LargeVarCharVector;
import org.apache.arrow.vector.NullVector;
import org.apache.arrow.vector.SmallIntVector;
import org.apache.arrow.vector.TimeStampMicroTZVector;
import org.apache.arrow.vector.TimeStampMicroVector;
import org.apache.arrow.vector.TimeStampVector;
import org.apache.arrow.vector.TinyIntVector;
import org.apache.arrow.vector.VarBinaryVector;
import org.apache.arrow.vector.VarCharVector;
import org.apache.arrow.vector.complex.FixedSizeListVector;
import org.apache.arrow.vector.complex.LargeListVector;
import org.apache.arrow.vector.complex.ListVector;
import org.apache.arrow.vector.complex.MapVector;
import org.apache.arrow.vector.complex.StructVector;
import org.apache.spark.sql.catalyst.InternalRow;
import org.apache.spark.sql.catalyst.expressions.SpecializedGetters;
import org.apache.spark.sql.catalyst.util.ArrayData;
import org.apache.spark.sql.catalyst.util.MapData;
import org.apache.spark.sql.types.ArrayType;
import org.apache.spark.sql.types.DataType;
import org.apache.spark.sql.types.Decimal;
import org.apache.spark.sql.types.DecimalType;
import org.apache.spark.sql.types.MapType;
import org.apache.spark.sql.types.StructType;
import org.apache.spark.sql.types.UserDefinedType;
import org.apache.spark.unsafe.types.UTF8String;

/** Appends one column of Spark's rows to an Arrow vector. Values of nested types are appended by the appenders of their parts. */
abstract class RowAppender {
  private final FieldVector vector;
  private final String column;

  private RowAppender(FieldVector vector, String column) {
    this.vector = vector;
    this.column = column;
  }

  /** Appends to {@code vector}, whose type holds every value of {@code type}; {@code column} names it in errors. */
  static RowAppender of(FieldVector vector, DataType type, String column) {
    if (type instanceof UserDefinedType<?> user) {
      return of(vector, user.sqlType(), column);
    }
    RowAppender appender = simple(vector, type, column);
    if (appender == null) {
      appender = nested(vector, type, column);
    }
    if (appender == null) {
      throw new IllegalArgumentException(
          "column \""
              + column
              + "\" is of type "
              + type.simpleString()
              + " and the dataset's is "
              + vector.getField().getType()
              + "; cast it to the dataset's type");
    }
    return appender;
  }

  /** Puts the value at {@code ordinal} of {@code row} at position {@code at}, after those before it. */
  final void append(SpecializedGetters row, int ordinal, int at) {
    if (!row.isNullAt(ordinal)) {
      set(row, ordinal, at);
    } else if (vector.getField().isNullable()) {
      setNull(at);
    } else {
      throw new IllegalArgumentException("column \"" + column + "\" has a null, and the dataset's column can hold none");
    }
  }

  abstract void set(SpecializedGetters row, int ordinal, int at);

  /** New memory is zero, which means null; only vectors that grow need to be told. */
  void setNull(int at) {
    vector.setNull(at);
  }

  /** How a value of one type gets into a vector. */
  private interface Setter {
    void set(SpecializedGetters row, int ordinal, int at);
  }

  private static RowAppender by(FieldVector vector, String column, Setter setter) {
    return new RowAppender(vector, column) {
      @Override
      void set(SpecializedGetters row, int ordinal, int at) {
        setter.set(row, ordinal, at);
      }
    };
  }

  private static RowAppender simple(FieldVector vector, DataType type, String column) {
    if (!ArrowTypes.sparkType(vector.getField()).equals(plain(type))) {
      return null;
    }
    Setter setter = null;
    if (vector instanceof BitVector v) {
      setter = (row, k, at) -> v.setSafe(at, row.getBoolean(k) ? 1 : 0);
    } else if (vector instanceof TinyIntVector v) {
      setter = (row, k, at) -> v.setSafe(at, row.getByte(k));
    } else if (vector instanceof SmallIntVector v) {
      setter = (row, k, at) -> v.setSafe(at, row.getShort(k));
    } else if (vector instanceof IntVector v) {
      setter = (row, k, at) -> v.setSafe(at, row.getInt(k));
    } else if (vector instanceof BigIntVector v) {
      setter = (row, k, at) -> v.setSafe(at, row.getLong(k));
    } else if (vector instanceof Float4Vector v) {
      setter = (row, k, at) -> v.setSafe(at, row.getFloat(k));
    } else if (vector instanceof Float8Vector v) {
      setter = (row, k, at) -> v.setSafe(at, row.getDouble(k));
    } else if (vector instanceof DateDayVector v) {
      setter = (row, k, at) -> v.setSafe(at, row.getInt(k));
    } else if (vector instanceof IntervalYearVector v) {
      setter = (row, k, at) -> v.setSafe(at, row.getInt(k));
    } else if (vector instanceof TimeStampMicroTZVector || vector instanceof TimeStampMicroVector) {
      TimeStampVector v = (TimeStampVector) vector;
      setter = (row, k, at) -> v.setSafe(at, row.getLong(k));
    } else if (vector instanceof DurationVector v && v.getUnit() == MICROS) {
      setter = (row, k, at) -> v.setSafe(at, row.getLong(k));
    } else if (vector instanceof DecimalVector v) {
      DecimalType decimal = (DecimalType) type;
      setter = (row, k, at) -> setDecimal(v, row.getDecimal(k, decimal.precision(), decimal.scale()), at);
    } else if (vector instanceof NullVector) {
      setter = (row, k, at) -> {};
    } else {
      setter = bytes(vector);
    }
    return setter == null ? null : by(vector, column, setter);
  }

  private static final org.apache.arrow.vector.types.TimeUnit MICROS = org.apache.arrow.vector.types.TimeUnit.MICROSECOND;

  /** Collations are of Spark alone. */
  private static DataType plain(DataType type) {
    return type instanceof org.apache.spark.sql.types.StringType ? org.apache.spark.sql.types.DataTypes.StringType : type;
  }

  private static Setter bytes(FieldVector vector) {
    if (vector instanceof VarCharVector v) {
      return (row, k, at) -> {
        ByteBuffer text = buffer(row.getUTF8String(k));
        v.setSafe(at, text, text.position(), text.remaining());
      };
    } else if (vector instanceof LargeVarCharVector v) {
      return (row, k, at) -> {
        ByteBuffer text = buffer(row.getUTF8String(k));
        v.setSafe(at, text, text.position(), text.remaining());
      };
    } else if (vector instanceof VarBinaryVector v) {
      return (row, k, at) -> v.setSafe(at, row.getBinary(k));
    } else if (vector instanceof LargeVarBinaryVector v) {
      return (row, k, at) -> v.setSafe(at, row.getBinary(k));
    }
    return null;
  }

  private static ByteBuffer buffer(UTF8String text) {
    return text.getBaseObject() instanceof byte[] ? text.getByteBuffer() : ByteBuffer.wrap(text.getBytes());
  }

  private static void setDecimal(DecimalVector vector, Decimal value, int at) {
    if (value.precision() <= Decimal.MAX_LONG_DIGITS() && value.scale() == vector.getScale()) {
      vector.setSafe(at, value.toUnscaledLong());
    } else {
      vector.setSafe(at, value.toJavaBigDecimal().setScale(vector.getScale()));
    }
  }

  private static RowAppender nested(FieldVector vector, DataType type, String column) {
    if (vector instanceof StructVector struct && type instanceof StructType fields) {
      return struct(struct, fields, column);
    } else if (vector instanceof MapVector map && type instanceof MapType types) {
      return map(map, types, column);
    } else if (type instanceof ArrayType array) {
      return list(vector, array, column);
    }
    return null;
  }

  private static RowAppender struct(StructVector vector, StructType type, String column) {
    List<FieldVector> children = vector.getChildrenFromFields();
    String[] names = type.fieldNames();
    if (names.length != children.size()) {
      return null;
    }
    RowAppender[] fields = new RowAppender[names.length];
    for (int k = 0; k < names.length; k++) {
      if (!children.get(k).getName().equals(names[k])) {
        return null;
      }
      fields[k] = of(children.get(k), type.fields()[k].dataType(), column + "." + names[k]);
    }
    return new RowAppender(vector, column) {
      @Override
      void set(SpecializedGetters row, int ordinal, int at) {
        InternalRow value = row.getStruct(ordinal, fields.length);
        vector.setIndexDefined(at);
        for (int k = 0; k < fields.length; k++) {
          fields[k].append(value, k, at);
        }
      }

      @Override
      void setNull(int at) {
        vector.setNull(at);
        for (RowAppender field : fields) {
          field.setNull(at);
        }
      }
    };
  }

  private static RowAppender list(FieldVector vector, ArrayType type, String column) {
    FieldVector items = vector.getChildrenFromFields().isEmpty() ? null : vector.getChildrenFromFields().get(0);
    if (items == null) {
      return null;
    }
    RowAppender item = of(items, type.elementType(), column + ".item");
    if (vector instanceof ListVector list) {
      return by(vector, column, (row, k, at) -> list.endValue(at, appendAll(item, row.getArray(k), list.startNewValue(at))));
    } else if (vector instanceof LargeListVector list) {
      return by(
          vector,
          column,
          (row, k, at) -> list.endValue(at, (long) appendAll(item, row.getArray(k), Math.toIntExact(list.startNewValue(at)))));
    } else if (vector instanceof FixedSizeListVector list) {
      return fixed(list, item, column);
    }
    return null;
  }

  private static RowAppender fixed(FixedSizeListVector list, RowAppender item, String column) {
    int size = list.getListSize();
    return new RowAppender(list, column) {
      @Override
      void set(SpecializedGetters row, int ordinal, int at) {
        ArrayData values = row.getArray(ordinal);
        if (values.numElements() != size) {
          throw new IllegalArgumentException(
              "column \"" + column + "\" has an array of " + values.numElements() + " items, and the dataset's have " + size);
        }
        appendAll(item, values, list.startNewValue(at));
      }

      @Override
      void setNull(int at) {
        int first = list.startNewValue(at);
        for (int k = 0; k < size; k++) {
          item.setNull(first + k);
        }
        list.setNull(at);
      }
    };
  }

  private static RowAppender map(MapVector vector, MapType type, String column) {
    StructVector entries = (StructVector) vector.getDataVector();
    List<FieldVector> fields = entries.getChildrenFromFields();
    RowAppender key = of(fields.get(0), type.keyType(), column + ".key");
    RowAppender value = of(fields.get(1), type.valueType(), column + ".value");
    return by(
        vector,
        column,
        (row, k, at) -> {
          MapData map = row.getMap(k);
          int first = vector.startNewValue(at);
          for (int entry = 0; entry < map.numElements(); entry++) {
            entries.setIndexDefined(first + entry);
            key.append(map.keyArray(), entry, first + entry);
            value.append(map.valueArray(), entry, first + entry);
          }
          vector.endValue(at, map.numElements());
        });
  }

  private static int appendAll(RowAppender item, ArrayData values, int first) {
    int count = values.numElements();
    for (int k = 0; k < count; k++) {
      item.append(values, k, first + k);
    }
    return count;
  }
}
