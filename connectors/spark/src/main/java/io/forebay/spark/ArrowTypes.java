package io.forebay.spark;

import java.util.ArrayList;
import java.util.List;
import org.apache.arrow.vector.complex.MapVector;
import org.apache.arrow.vector.types.DateUnit;
import org.apache.arrow.vector.types.FloatingPointPrecision;
import org.apache.arrow.vector.types.IntervalUnit;
import org.apache.arrow.vector.types.TimeUnit;
import org.apache.arrow.vector.types.pojo.ArrowType;
import org.apache.arrow.vector.types.pojo.Field;
import org.apache.arrow.vector.types.pojo.FieldType;
import org.apache.arrow.vector.types.pojo.Schema;
import org.apache.spark.sql.types.ArrayType;
import org.apache.spark.sql.types.BinaryType;
import org.apache.spark.sql.types.BooleanType;
import org.apache.spark.sql.types.ByteType;
import org.apache.spark.sql.types.DataType;
import org.apache.spark.sql.types.DataTypes;
import org.apache.spark.sql.types.DateType;
import org.apache.spark.sql.types.DayTimeIntervalType;
import org.apache.spark.sql.types.DecimalType;
import org.apache.spark.sql.types.DoubleType;
import org.apache.spark.sql.types.FloatType;
import org.apache.spark.sql.types.IntegerType;
import org.apache.spark.sql.types.LongType;
import org.apache.spark.sql.types.MapType;
import org.apache.spark.sql.types.Metadata;
import org.apache.spark.sql.types.NullType;
import org.apache.spark.sql.types.ShortType;
import org.apache.spark.sql.types.StringType;
import org.apache.spark.sql.types.StructField;
import org.apache.spark.sql.types.StructType;
import org.apache.spark.sql.types.TimestampNTZType;
import org.apache.spark.sql.types.TimestampType;
import org.apache.spark.sql.types.UserDefinedType;
import org.apache.spark.sql.types.YearMonthIntervalType;

/**
 * The types of Arrow and of Spark, both ways. What Spark writes has one Arrow type each; what others wrote is read wherever Spark has a
 * type that holds every value (docs/spark.md has the table). Written columns may always be null, as in Spark's own file formats.
 */
final class ArrowTypes {
  private static final int DECIMAL_DIGITS_MAX = 38;

  private ArrowTypes() {}

  // ---- to Arrow

  /** The schema that rows of {@code schema} are written with. */
  static Schema toArrow(StructType schema) {
    return new Schema(fields(schema, ""));
  }

  private static List<Field> fields(StructType schema, String above) {
    List<Field> fields = new ArrayList<>();
    for (StructField field : schema.fields()) {
      fields.add(toArrow(field.name(), field.dataType(), true, above + field.name()));
    }
    return fields;
  }

  private static Field toArrow(String name, DataType type, boolean nullable, String column) {
    List<Field> children = List.of();
    if (type instanceof ArrayType array) {
      children = List.of(toArrow("item", array.elementType(), true, column + ".item"));
    } else if (type instanceof StructType struct) {
      children = fields(struct, column + ".");
    } else if (type instanceof MapType map) {
      Field key = toArrow(MapVector.KEY_NAME, map.keyType(), false, column + ".key");
      Field value = toArrow(MapVector.VALUE_NAME, map.valueType(), true, column + ".value");
      FieldType entries = FieldType.notNullable(ArrowType.Struct.INSTANCE);
      children = List.of(new Field(MapVector.DATA_VECTOR_NAME, entries, List.of(key, value)));
    } else if (type instanceof UserDefinedType<?> user) {
      return toArrow(name, user.sqlType(), nullable, column);
    }
    return new Field(name, new FieldType(nullable, arrowType(type, column), null), children);
  }

  private static ArrowType arrowType(DataType type, String column) {
    if (type instanceof BooleanType) {
      return ArrowType.Bool.INSTANCE;
    } else if (type instanceof ByteType) {
      return new ArrowType.Int(8, true);
    } else if (type instanceof ShortType) {
      return new ArrowType.Int(16, true);
    } else if (type instanceof IntegerType) {
      return new ArrowType.Int(32, true);
    } else if (type instanceof LongType) {
      return new ArrowType.Int(64, true);
    } else if (type instanceof FloatType) {
      return new ArrowType.FloatingPoint(FloatingPointPrecision.SINGLE);
    } else if (type instanceof DoubleType) {
      return new ArrowType.FloatingPoint(FloatingPointPrecision.DOUBLE);
    } else if (type instanceof DecimalType decimal) {
      return new ArrowType.Decimal(decimal.precision(), decimal.scale(), 128);
    } else if (type instanceof StringType) {
      return ArrowType.Utf8.INSTANCE;
    } else if (type instanceof BinaryType) {
      return ArrowType.Binary.INSTANCE;
    } else if (type instanceof DateType) {
      return new ArrowType.Date(DateUnit.DAY);
    } else if (type instanceof TimestampType) {
      return new ArrowType.Timestamp(TimeUnit.MICROSECOND, "UTC");
    } else if (type instanceof TimestampNTZType) {
      return new ArrowType.Timestamp(TimeUnit.MICROSECOND, null);
    } else if (type instanceof YearMonthIntervalType) {
      return new ArrowType.Interval(IntervalUnit.YEAR_MONTH);
    } else if (type instanceof DayTimeIntervalType) {
      return new ArrowType.Duration(TimeUnit.MICROSECOND);
    } else if (type instanceof NullType) {
      return ArrowType.Null.INSTANCE;
    } else if (type instanceof ArrayType) {
      return ArrowType.List.INSTANCE;
    } else if (type instanceof StructType) {
      return ArrowType.Struct.INSTANCE;
    } else if (type instanceof MapType) {
      return new ArrowType.Map(false);
    }
    throw new IllegalArgumentException(
        "column \"" + column + "\" is of type " + type.simpleString() + ", which is not written; cast it to a type that is");
  }

  // ---- to Spark

  /** The schema that a dataset is read with. */
  static StructType toSpark(Schema schema) {
    List<StructField> fields = new ArrayList<>();
    for (Field field : schema.getFields()) {
      fields.add(toSpark(field, field.getName()));
    }
    return new StructType(fields.toArray(new StructField[0]));
  }

  private static StructField toSpark(Field field, String column) {
    return new StructField(field.getName(), sparkType(field, column), field.isNullable(), Metadata.empty());
  }

  /** The Spark type of a field. A field with a dictionary has the type of its values, as messages have it. */
  static DataType sparkType(Field field) {
    return sparkType(field, field.getName());
  }

  private static DataType sparkType(Field field, String column) {
    DataType nested = nestedType(field, column);
    if (nested != null) {
      return nested;
    }
    DataType simple = simpleType(field.getType());
    if (simple == null) {
      throw new IllegalArgumentException(
          "column \"" + column + "\" is of Arrow type " + field.getType() + ", which Spark has no type for that holds every value");
    }
    return simple;
  }

  private static DataType nestedType(Field field, String column) {
    List<Field> children = field.getChildren();
    switch (field.getType().getTypeID()) {
      case List, LargeList, FixedSizeList -> {
        Field item = children.get(0);
        return new ArrayType(sparkType(item, column + ".item"), item.isNullable());
      }
      case Map -> {
        List<Field> entry = children.get(0).getChildren();
        DataType key = sparkType(entry.get(0), column + ".key");
        return new MapType(key, sparkType(entry.get(1), column + ".value"), entry.get(1).isNullable());
      }
      case Struct -> {
        StructField[] fields = children.stream().map(c -> toSpark(c, column + "." + c.getName())).toArray(StructField[]::new);
        return new StructType(fields);
      }
      default -> {
        return null;
      }
    }
  }

  private static DataType simpleType(ArrowType type) {
    return switch (type.getTypeID()) {
      case Null -> DataTypes.NullType;
      case Bool -> DataTypes.BooleanType;
      case Int -> intType((ArrowType.Int) type);
      case FloatingPoint ->
          ((ArrowType.FloatingPoint) type).getPrecision() == FloatingPointPrecision.DOUBLE ? DataTypes.DoubleType : DataTypes.FloatType;
      case Decimal -> decimalType((ArrowType.Decimal) type);
      case Utf8, LargeUtf8, Utf8View -> DataTypes.StringType;
      case Binary, LargeBinary, BinaryView, FixedSizeBinary -> DataTypes.BinaryType;
      case Date -> DataTypes.DateType;
      case Timestamp -> ((ArrowType.Timestamp) type).getTimezone() == null ? DataTypes.TimestampNTZType : DataTypes.TimestampType;
      case Duration -> DataTypes.createDayTimeIntervalType();
      case Interval ->
          ((ArrowType.Interval) type).getUnit() == IntervalUnit.YEAR_MONTH ? DataTypes.createYearMonthIntervalType() : null;
      default -> null;
    };
  }

  private static DataType intType(ArrowType.Int type) {
    return switch (type.getBitWidth()) {
      case 8 -> type.getIsSigned() ? DataTypes.ByteType : DataTypes.ShortType;
      case 16 -> type.getIsSigned() ? DataTypes.ShortType : DataTypes.IntegerType;
      case 32 -> type.getIsSigned() ? DataTypes.IntegerType : DataTypes.LongType;
      default -> type.getIsSigned() ? DataTypes.LongType : DataTypes.createDecimalType(20, 0);
    };
  }

  private static DataType decimalType(ArrowType.Decimal type) {
    boolean fits = type.getPrecision() <= DECIMAL_DIGITS_MAX && type.getScale() >= 0 && type.getScale() <= type.getPrecision();
    return fits ? DataTypes.createDecimalType(type.getPrecision(), type.getScale()) : null;
  }
}
