package io.forebay.spark;

import java.math.BigDecimal;
import java.math.BigInteger;
import java.util.List;
import java.util.stream.IntStream;
import org.apache.arrow.vector.BaseIntVector;
import org.apache.arrow.vector.BitVector;
import org.apache.arrow.vector.FieldVector;
import org.apache.arrow.vector.Float2Vector;
import org.apache.arrow.vector.VectorSchemaRoot;
import org.apache.arrow.vector.ViewVarBinaryVector;
import org.apache.arrow.vector.ViewVarCharVector;
import org.apache.arrow.vector.complex.FixedSizeListVector;
import org.apache.arrow.vector.complex.LargeListVector;
import org.apache.arrow.vector.complex.ListVector;
import org.apache.arrow.vector.complex.MapVector;
import org.apache.arrow.vector.complex.StructVector;
import org.apache.arrow.vector.dictionary.Dictionary;
import org.apache.arrow.vector.dictionary.DictionaryProvider;
import org.apache.arrow.vector.types.DateUnit;
import org.apache.arrow.vector.types.TimeUnit;
import org.apache.arrow.vector.types.pojo.ArrowType;
import org.apache.spark.sql.types.ArrayType;
import org.apache.spark.sql.types.DataType;
import org.apache.spark.sql.types.DataTypes;
import org.apache.spark.sql.types.Decimal;
import org.apache.spark.sql.types.MapType;
import org.apache.spark.sql.types.StringType;
import org.apache.spark.sql.types.StructField;
import org.apache.spark.sql.types.StructType;
import org.apache.spark.sql.vectorized.ColumnVector;
import org.apache.spark.sql.vectorized.ColumnarArray;
import org.apache.spark.sql.vectorized.ColumnarBatch;
import org.apache.spark.sql.vectorized.ColumnarMap;
import org.apache.spark.unsafe.Platform;
import org.apache.spark.unsafe.types.UTF8String;

/** Shows an Arrow batch as a Spark batch. One class for each shape of buffers; which types there are is told by {@link ArrowTypes}. */
final class ArrowColumns {
  private static final long MICROS_PER_SECOND = 1_000_000;
  private static final long MICROS_PER_MILLI = 1_000;
  private static final long NANOS_PER_MICRO = 1_000;
  private static final long MILLIS_PER_DAY = 86_400_000;

  private final DictionaryProvider dictionaries;

  private ArrowColumns(DictionaryProvider dictionaries) {
    this.dictionaries = dictionaries;
  }

  /** The batch that {@code root} holds now. Good until the root is loaded again. */
  static ColumnarBatch batch(VectorSchemaRoot root, DictionaryProvider dictionaries) {
    ArrowColumns columns = new ArrowColumns(dictionaries);
    ColumnVector[] vectors = root.getFieldVectors().stream().map(columns::of).toArray(ColumnVector[]::new);
    return new ColumnarBatch(vectors, root.getRowCount());
  }

  /** The same, as a table of this schema has it: columns of folders may be of other types than their texts. */
  static ColumnarBatch batch(VectorSchemaRoot root, DictionaryProvider dictionaries, StructType schema, FolderTypes folders) {
    ColumnarBatch stored = batch(root, dictionaries);
    ColumnVector[] columns = new ColumnVector[schema.size()];
    for (int k = 0; k < columns.length; k++) {
      StructField field = schema.fields()[k];
      boolean texts = stored.column(k).dataType() instanceof StringType && !(field.dataType() instanceof StringType);
      columns[k] = texts ? new FolderColumn(field.name(), field.dataType(), stored.column(k), folders) : stored.column(k);
    }
    return new ColumnarBatch(columns, stored.numRows());
  }

  private ColumnVector of(FieldVector vector) {
    if (vector.getField().getDictionary() != null) {
      Dictionary dictionary = dictionaries.lookup(vector.getField().getDictionary().getId());
      return new Encoded(vector, of(dictionary.getVector()));
    }
    return switch (vector.getField().getType().getTypeID()) {
      case List, LargeList, FixedSizeList, Map, Struct -> nested(vector);
      default -> simple(vector, ArrowTypes.sparkType(vector.getField()));
    };
  }

  private ColumnVector nested(FieldVector vector) {
    List<FieldVector> children = vector.getChildrenFromFields();
    if (vector instanceof StructVector) {
      return new Struct(vector, children.stream().map(this::of).toArray(ColumnVector[]::new));
    }
    if (vector instanceof MapVector map) {
      List<FieldVector> entry = map.getDataVector().getChildrenFromFields();
      return new Mapped(map, of(entry.get(0)), of(entry.get(1)));
    }
    return new Listed(vector, of(children.get(0)));
  }

  private static ColumnVector simple(FieldVector vector, DataType type) {
    ArrowType arrow = vector.getField().getType();
    return switch (arrow.getTypeID()) {
      case Null -> new Nulls(vector.getValueCount());
      case Bool -> new Bits((BitVector) vector);
      case Int -> ((ArrowType.Int) arrow).getIsSigned() ? new Fixed(type, vector) : unsigned(vector, (ArrowType.Int) arrow, type);
      case FloatingPoint -> vector instanceof Float2Vector half ? new Halves(half) : new Fixed(type, vector);
      case Decimal -> new Decimals(type, vector, ((ArrowType.Decimal) arrow).getBitWidth() / 8);
      case Utf8, Binary -> new Variable(type, vector, false);
      case LargeUtf8, LargeBinary -> new Variable(type, vector, true);
      case Utf8View, BinaryView -> new Views(type, vector);
      case FixedSizeBinary -> new FixedBinary(vector, ((ArrowType.FixedSizeBinary) arrow).getByteWidth());
      case Date -> ((ArrowType.Date) arrow).getUnit() == DateUnit.DAY ? new Fixed(type, vector) : new Days(vector);
      case Timestamp -> new Micros(type, vector, ((ArrowType.Timestamp) arrow).getUnit());
      case Duration -> new Micros(type, vector, ((ArrowType.Duration) arrow).getUnit());
      case Interval -> new Fixed(type, vector);
      default -> throw new IllegalStateException(arrow + " has a Spark type and no column");
    };
  }

  private static ColumnVector unsigned(FieldVector vector, ArrowType.Int arrow, DataType type) {
    return arrow.getBitWidth() == 64 ? new Unsigned64(vector) : new Unsigned(type, vector, arrow.getBitWidth() / 8);
  }

  /** Values as Spark has them: whole numbers, floats, days, months. */
  private static final class Fixed extends ArrowColumn {
    private final long data;

    Fixed(DataType type, FieldVector vector) {
      super(type, vector);
      data = vector.getDataBufferAddress();
    }

    @Override
    public byte getByte(int row) {
      return Platform.getByte(null, data + row);
    }

    @Override
    public short getShort(int row) {
      return Platform.getShort(null, data + 2L * row);
    }

    @Override
    public int getInt(int row) {
      return Platform.getInt(null, data + 4L * row);
    }

    @Override
    public long getLong(int row) {
      return Platform.getLong(null, data + 8L * row);
    }

    @Override
    public float getFloat(int row) {
      return Platform.getFloat(null, data + 4L * row);
    }

    @Override
    public double getDouble(int row) {
      return Platform.getDouble(null, data + 8L * row);
    }

    @Override
    public int[] getInts(int row, int count) {
      int[] values = new int[count];
      Platform.copyMemory(null, data + 4L * row, values, Platform.INT_ARRAY_OFFSET, 4L * count);
      return values;
    }

    @Override
    public long[] getLongs(int row, int count) {
      long[] values = new long[count];
      Platform.copyMemory(null, data + 8L * row, values, Platform.LONG_ARRAY_OFFSET, 8L * count);
      return values;
    }

    @Override
    public float[] getFloats(int row, int count) {
      float[] values = new float[count];
      Platform.copyMemory(null, data + 4L * row, values, Platform.FLOAT_ARRAY_OFFSET, 4L * count);
      return values;
    }

    @Override
    public double[] getDoubles(int row, int count) {
      double[] values = new double[count];
      Platform.copyMemory(null, data + 8L * row, values, Platform.DOUBLE_ARRAY_OFFSET, 8L * count);
      return values;
    }
  }

  private static final class Bits extends ArrowColumn {
    private final long data;

    Bits(BitVector vector) {
      super(DataTypes.BooleanType, vector);
      data = vector.getDataBufferAddress();
    }

    @Override
    public boolean getBoolean(int row) {
      return bit(data, row);
    }
  }

  /** Unsigned numbers of 8, 16 and 32 bits, in the next wider type. */
  private static final class Unsigned extends ArrowColumn {
    private final long data;
    private final int width;

    Unsigned(DataType type, FieldVector vector, int width) {
      super(type, vector);
      this.data = vector.getDataBufferAddress();
      this.width = width;
    }

    @Override
    public short getShort(int row) {
      return (short) getLong(row);
    }

    @Override
    public int getInt(int row) {
      return (int) getLong(row);
    }

    @Override
    public long getLong(int row) {
      long at = data + (long) width * row;
      return switch (width) {
        case 1 -> Platform.getByte(null, at) & 0xffL;
        case 2 -> Platform.getShort(null, at) & 0xffffL;
        default -> Platform.getInt(null, at) & 0xffff_ffffL;
      };
    }
  }

  private static final class Unsigned64 extends ArrowColumn {
    private final long data;

    Unsigned64(FieldVector vector) {
      super(DataTypes.createDecimalType(20, 0), vector);
      data = vector.getDataBufferAddress();
    }

    @Override
    public Decimal getDecimal(int row, int precision, int scale) {
      long value = Platform.getLong(null, data + 8L * row);
      BigInteger unsigned = new BigInteger(Long.toUnsignedString(value));
      return Decimal.apply(new BigDecimal(unsigned), precision, scale);
    }
  }

  private static final class Halves extends ArrowColumn {
    private final Float2Vector vector;

    Halves(Float2Vector vector) {
      super(DataTypes.FloatType, vector);
      this.vector = vector;
    }

    @Override
    public float getFloat(int row) {
      return vector.getValueAsFloat(row);
    }
  }

  /** Little-endian numbers of 16 or 32 bytes. */
  private static final class Decimals extends ArrowColumn {
    private final long data;
    private final int width;

    Decimals(DataType type, FieldVector vector, int width) {
      super(type, vector);
      this.data = vector.getDataBufferAddress();
      this.width = width;
    }

    @Override
    public Decimal getDecimal(int row, int precision, int scale) {
      long at = data + (long) width * row;
      if (precision <= Decimal.MAX_LONG_DIGITS()) {
        return Decimal.createUnsafe(Platform.getLong(null, at), precision, scale);
      }
      byte[] bigEndian = new byte[width];
      for (int k = 0; k < width; k++) {
        bigEndian[width - 1 - k] = Platform.getByte(null, at + k);
      }
      return Decimal.apply(new BigDecimal(new BigInteger(bigEndian), scale), precision, scale);
    }
  }

  /** Strings and bytes behind offsets of 32 or 64 bits. */
  private static final class Variable extends ArrowColumn {
    private final long data;
    private final long offsets;
    private final boolean large;

    Variable(DataType type, FieldVector vector, boolean large) {
      super(type, vector);
      this.data = vector.getDataBufferAddress();
      this.offsets = vector.getOffsetBufferAddress();
      this.large = large;
    }

    private long offset(int row) {
      return large ? Platform.getLong(null, offsets + 8L * row) : Platform.getInt(null, offsets + 4L * row);
    }

    @Override
    public UTF8String getUTF8String(int row) {
      long begin = offset(row);
      return UTF8String.fromAddress(null, data + begin, Math.toIntExact(offset(row + 1) - begin));
    }

    @Override
    public byte[] getBinary(int row) {
      long begin = offset(row);
      byte[] bytes = new byte[Math.toIntExact(offset(row + 1) - begin)];
      Platform.copyMemory(null, data + begin, bytes, Platform.BYTE_ARRAY_OFFSET, bytes.length);
      return bytes;
    }
  }

  private static final class Views extends ArrowColumn {
    private final FieldVector vector;

    Views(DataType type, FieldVector vector) {
      super(type, vector);
      this.vector = vector;
    }

    @Override
    public UTF8String getUTF8String(int row) {
      return UTF8String.fromBytes(((ViewVarCharVector) vector).get(row));
    }

    @Override
    public byte[] getBinary(int row) {
      return ((ViewVarBinaryVector) vector).get(row);
    }
  }

  private static final class FixedBinary extends ArrowColumn {
    private final long data;
    private final int width;

    FixedBinary(FieldVector vector, int width) {
      super(DataTypes.BinaryType, vector);
      this.data = vector.getDataBufferAddress();
      this.width = width;
    }

    @Override
    public byte[] getBinary(int row) {
      byte[] bytes = new byte[width];
      Platform.copyMemory(null, data + (long) width * row, bytes, Platform.BYTE_ARRAY_OFFSET, width);
      return bytes;
    }
  }

  /** Dates in milliseconds. */
  private static final class Days extends ArrowColumn {
    private final long data;

    Days(FieldVector vector) {
      super(DataTypes.DateType, vector);
      data = vector.getDataBufferAddress();
    }

    @Override
    public int getInt(int row) {
      return Math.toIntExact(Math.floorDiv(Platform.getLong(null, data + 8L * row), MILLIS_PER_DAY));
    }
  }

  /** Times and durations of any unit, in microseconds. Nanoseconds below one are cut off. */
  private static final class Micros extends ArrowColumn {
    private final long data;
    private final TimeUnit unit;

    Micros(DataType type, FieldVector vector, TimeUnit unit) {
      super(type, vector);
      this.data = vector.getDataBufferAddress();
      this.unit = unit;
    }

    @Override
    public long getLong(int row) {
      long value = Platform.getLong(null, data + 8L * row);
      return switch (unit) {
        case SECOND -> Math.multiplyExact(value, MICROS_PER_SECOND);
        case MILLISECOND -> Math.multiplyExact(value, MICROS_PER_MILLI);
        case MICROSECOND -> value;
        case NANOSECOND -> Math.floorDiv(value, NANOS_PER_MICRO);
      };
    }
  }

  private static final class Nulls extends ArrowColumn {
    Nulls(int count) {
      super(DataTypes.NullType, count);
    }

    @Override
    public boolean isNullAt(int row) {
      return true;
    }
  }

  private static final class Struct extends ArrowColumn {
    private final ColumnVector[] children;

    Struct(FieldVector vector, ColumnVector[] children) {
      super(type(vector, children), vector);
      this.children = children;
    }

    private static StructType type(FieldVector vector, ColumnVector[] children) {
      var names = vector.getField().getChildren();
      return IntStream.range(0, children.length)
          .boxed()
          .reduce(
              new StructType(),
              (struct, k) -> struct.add(names.get(k).getName(), children[k].dataType(), names.get(k).isNullable()),
              (a, b) -> a);
    }

    @Override
    public ColumnVector getChild(int ordinal) {
      return children[ordinal];
    }
  }

  /** Lists with offsets of 32 or 64 bits, and of a fixed size. */
  private static final class Listed extends ArrowColumn {
    private final ColumnVector items;
    private final FieldVector vector;

    Listed(FieldVector vector, ColumnVector items) {
      super(new ArrayType(items.dataType(), vector.getField().getChildren().get(0).isNullable()), vector);
      this.vector = vector;
      this.items = items;
    }

    @Override
    public ColumnarArray getArray(int row) {
      int begin;
      int end;
      if (vector instanceof ListVector list) {
        begin = list.getElementStartIndex(row);
        end = list.getElementEndIndex(row);
      } else if (vector instanceof LargeListVector list) {
        begin = Math.toIntExact(list.getElementStartIndex(row));
        end = Math.toIntExact(list.getElementEndIndex(row));
      } else {
        int size = ((FixedSizeListVector) vector).getListSize();
        begin = Math.multiplyExact(row, size);
        end = begin + size;
      }
      return new ColumnarArray(items, begin, end - begin);
    }
  }

  private static final class Mapped extends ArrowColumn {
    private final MapVector vector;
    private final ColumnVector keys;
    private final ColumnVector values;

    Mapped(MapVector vector, ColumnVector keys, ColumnVector values) {
      super(new MapType(keys.dataType(), values.dataType(), true), vector);
      this.vector = vector;
      this.keys = keys;
      this.values = values;
    }

    @Override
    public ColumnarMap getMap(int row) {
      int begin = vector.getElementStartIndex(row);
      return new ColumnarMap(keys, values, begin, vector.getElementEndIndex(row) - begin);
    }
  }

  /** Indexes into a dictionary, whose values may be null as well. */
  private static final class Encoded extends ArrowColumn {
    private final BaseIntVector indexes;
    private final ColumnVector values;

    Encoded(FieldVector indexes, ColumnVector values) {
      super(values.dataType(), indexes);
      this.indexes = (BaseIntVector) indexes;
      this.values = values;
    }

    private int at(int row) {
      return Math.toIntExact(indexes.getValueAsLong(row));
    }

    @Override
    public boolean isNullAt(int row) {
      return super.isNullAt(row) || values.isNullAt(at(row));
    }

    @Override
    public boolean hasNull() {
      return super.hasNull() || values.hasNull();
    }

    @Override
    public boolean getBoolean(int row) {
      return values.getBoolean(at(row));
    }

    @Override
    public byte getByte(int row) {
      return values.getByte(at(row));
    }

    @Override
    public short getShort(int row) {
      return values.getShort(at(row));
    }

    @Override
    public int getInt(int row) {
      return values.getInt(at(row));
    }

    @Override
    public long getLong(int row) {
      return values.getLong(at(row));
    }

    @Override
    public float getFloat(int row) {
      return values.getFloat(at(row));
    }

    @Override
    public double getDouble(int row) {
      return values.getDouble(at(row));
    }

    @Override
    public ColumnarArray getArray(int row) {
      return values.getArray(at(row));
    }

    @Override
    public ColumnarMap getMap(int row) {
      return values.getMap(at(row));
    }

    @Override
    public Decimal getDecimal(int row, int precision, int scale) {
      return values.getDecimal(at(row), precision, scale);
    }

    @Override
    public UTF8String getUTF8String(int row) {
      return values.getUTF8String(at(row));
    }

    @Override
    public byte[] getBinary(int row) {
      return values.getBinary(at(row));
    }
  }
}
