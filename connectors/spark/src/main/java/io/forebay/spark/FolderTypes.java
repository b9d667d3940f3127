package io.forebay.spark;

import java.io.Serializable;
import java.math.BigDecimal;
import java.math.RoundingMode;
import java.time.ZoneId;
import java.util.Collection;
import java.util.function.Predicate;
import java.util.regex.Pattern;
import org.apache.spark.sql.catalyst.util.DateTimeUtils;
import org.apache.spark.sql.internal.SQLConf;
import org.apache.spark.sql.types.BooleanType;
import org.apache.spark.sql.types.ByteType;
import org.apache.spark.sql.types.DataType;
import org.apache.spark.sql.types.DataTypes;
import org.apache.spark.sql.types.DateType;
import org.apache.spark.sql.types.Decimal;
import org.apache.spark.sql.types.DecimalType;
import org.apache.spark.sql.types.DoubleType;
import org.apache.spark.sql.types.FloatType;
import org.apache.spark.sql.types.IntegerType;
import org.apache.spark.sql.types.LongType;
import org.apache.spark.sql.types.ShortType;
import org.apache.spark.sql.types.StringType;
import org.apache.spark.sql.types.TimestampNTZType;
import org.apache.spark.sql.types.TimestampType;
import org.apache.spark.unsafe.types.UTF8String;
import scala.Option;

/**
 * Columns of folders {@code k=v}: the type that Spark's own file sources find in their texts, and the values that texts stand for in a
 * type. Times of day, which Spark finds since 4.1, stay strings here: there is no column of them to read.
 *
 * <p>Two texts may be one value ({@code 01} and {@code 1}); one text is never two.
 */
final class FolderTypes implements Serializable {
  private static final long serialVersionUID = 1;
  private static final int DIGITS_MAX = 38;

  /** Digits of an int and of a long, as Spark counts them where decimals are beside. */
  private static final int INT_DIGITS = 10;

  private static final int LONG_DIGITS = 20;

  private static final String DAY = "(-?\\d{4}|[+-]\\d{5,6})-\\d{2}-\\d{2}";
  private static final Predicate<String> IS_DATE = Pattern.compile(DAY).asMatchPredicate();
  private static final Predicate<String> IS_TIMESTAMP = Pattern.compile(DAY + " ([01]\\d|2[0-3]):\\d{2}:\\d{2}(\\.\\d)?").asMatchPredicate();

  private final DataType timestamps;
  private final ZoneId zone;

  /** {@code timestamps}: the type of texts that are a date and a time of day. {@code zone}: where those that have no zone are. */
  FolderTypes(DataType timestamps, ZoneId zone) {
    this.timestamps = timestamps;
    this.zone = zone;
  }

  /** As the session that asks has its timestamps. */
  static FolderTypes ofSession() {
    SQLConf conf = SQLConf.get();
    boolean bare = conf.getConfString("spark.sql.timestampType", "TIMESTAMP_LTZ").equalsIgnoreCase("TIMESTAMP_NTZ");
    return new FolderTypes(bare ? DataTypes.TimestampNTZType : DataTypes.TimestampType, ZoneId.of(conf.sessionLocalTimeZone(), ZoneId.SHORT_IDS));
  }

  /** The type that holds all of these texts. A {@code null} says nothing; where nothing else is, it is a string. */
  DataType of(Collection<String> texts) {
    DataType all = null;
    for (String text : texts) {
      if (text != null) {
        DataType one = of(text);
        all = all == null ? one : wider(all, one);
      }
    }
    return all == null ? DataTypes.StringType : all;
  }

  /** Whole numbers come first, then other numbers, times, dates; everything is a string. */
  private DataType of(String text) {
    if (isSaid(text, Integer::parseInt)) {
      return DataTypes.IntegerType;
    } else if (isSaid(text, Long::parseLong)) {
      return DataTypes.LongType;
    }
    DataType whole = wholeDecimal(text);
    if (whole != null) {
      return whole;
    } else if (isSaid(text, Double::parseDouble)) {
      return DataTypes.DoubleType;
    } else if (IS_TIMESTAMP.test(text) && isSaid(text, t -> value(t, timestamps))) {
      return timestamps;
    } else if (IS_DATE.test(text) && isSaid(text, t -> value(t, DataTypes.DateType))) {
      return DataTypes.DateType;
    }
    return DataTypes.StringType;
  }

  private static boolean isSaid(String text, java.util.function.Function<String, Object> parse) {
    try {
      parse.apply(text);
      return true;
    } catch (IllegalArgumentException e) {
      return false;
    }
  }

  private static DataType wholeDecimal(String text) {
    try {
      BigDecimal number = new BigDecimal(text);
      long digits = (long) number.precision() - number.scale();
      return number.scale() <= 0 && digits <= DIGITS_MAX ? DataTypes.createDecimalType((int) digits, 0) : null;
    } catch (NumberFormatException e) {
      return null;
    }
  }

  /** The type that holds what both do, exactly. */
  private static DataType wider(DataType a, DataType b) {
    if (a.equals(b)) {
      return a;
    } else if (isWhole(a) && isWhole(b)) {
      boolean decimal = a instanceof DecimalType || b instanceof DecimalType;
      return decimal ? DataTypes.createDecimalType(Math.max(digits(a), digits(b)), 0) : DataTypes.LongType;
    } else if (are(a, b, DoubleType.class, IntegerType.class)) {
      return DataTypes.DoubleType;
    } else if (are(a, b, DateType.class, TimestampType.class)) {
      return DataTypes.TimestampType;
    } else if (are(a, b, DateType.class, TimestampNTZType.class)) {
      return DataTypes.TimestampNTZType;
    }
    return DataTypes.StringType;
  }

  private static boolean are(DataType a, DataType b, Class<? extends DataType> one, Class<? extends DataType> other) {
    return one.isInstance(a) && other.isInstance(b) || one.isInstance(b) && other.isInstance(a);
  }

  private static boolean isWhole(DataType type) {
    return type instanceof IntegerType || type instanceof LongType || type instanceof DecimalType;
  }

  private static int digits(DataType type) {
    if (type instanceof DecimalType decimal) {
      return decimal.precision();
    }
    return type instanceof IntegerType ? INT_DIGITS : LONG_DIGITS;
  }

  /** Whether texts can be read as values of this type, which a user may have said. */
  static boolean isReadAs(DataType type) {
    return type instanceof StringType
        || type instanceof BooleanType
        || type instanceof ByteType
        || type instanceof ShortType
        || type instanceof IntegerType
        || type instanceof LongType
        || type instanceof FloatType
        || type instanceof DoubleType
        || type instanceof DecimalType
        || type instanceof DateType
        || type instanceof TimestampType
        || type instanceof TimestampNTZType;
  }

  /**
   * The value that a text stands for, as Spark keeps values of the type.
   *
   * @throws IllegalArgumentException where it stands for none
   */
  Object value(String text, DataType type) {
    if (type instanceof BooleanType) {
      return truth(text);
    } else if (type instanceof ByteType) {
      return Byte.valueOf(text);
    } else if (type instanceof ShortType) {
      return Short.valueOf(text);
    } else if (type instanceof IntegerType) {
      return Integer.valueOf(text);
    } else if (type instanceof LongType) {
      return Long.valueOf(text);
    } else if (type instanceof FloatType) {
      return Float.valueOf(text);
    } else if (type instanceof DoubleType) {
      return Double.valueOf(text);
    } else if (type instanceof DecimalType decimal) {
      return decimal(text, decimal);
    } else if (type instanceof DateType) {
      return there(text, DateTimeUtils.stringToDate(UTF8String.fromString(text)));
    } else if (type instanceof TimestampType) {
      return there(text, DateTimeUtils.stringToTimestamp(UTF8String.fromString(text), zone));
    } else if (type instanceof TimestampNTZType) {
      return there(text, DateTimeUtils.stringToTimestampWithoutTimeZone(UTF8String.fromString(text)));
    }
    return UTF8String.fromString(text);
  }

  private static Boolean truth(String text) {
    if (text.equalsIgnoreCase("true") || text.equalsIgnoreCase("false")) {
      return Boolean.valueOf(text);
    }
    throw new IllegalArgumentException(text + " is neither true nor false");
  }

  private static Decimal decimal(String text, DecimalType type) {
    BigDecimal number = new BigDecimal(text);
    long digits = (long) number.precision() - number.scale();
    if (digits <= type.precision() - type.scale()) {
      try {
        return Decimal.apply(number.setScale(type.scale(), RoundingMode.UNNECESSARY), type.precision(), type.scale());
      } catch (ArithmeticException e) {
        throw new IllegalArgumentException(text + " has more digits than a " + type.simpleString(), e);
      }
    }
    throw new IllegalArgumentException(text + " has more digits than a " + type.simpleString());
  }

  private static Object there(String text, Option<Object> value) {
    if (value.isEmpty()) {
      throw new IllegalArgumentException(text + " is no date or time");
    }
    return value.get();
  }
}
