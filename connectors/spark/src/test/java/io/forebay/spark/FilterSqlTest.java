package io.forebay.spark;

import static org.junit.jupiter.api.Assertions.assertEquals;

import java.util.List;
import java.util.Optional;
import org.apache.arrow.vector.types.DateUnit;
import org.apache.arrow.vector.types.FloatingPointPrecision;
import org.apache.arrow.vector.types.TimeUnit;
import org.apache.arrow.vector.types.pojo.ArrowType;
import org.apache.arrow.vector.types.pojo.Field;
import org.apache.arrow.vector.types.pojo.Schema;
import org.apache.spark.sql.connector.expressions.Expression;
import org.apache.spark.sql.connector.expressions.Expressions;
import org.apache.spark.sql.connector.expressions.LiteralValue;
import org.apache.spark.sql.connector.expressions.filter.And;
import org.apache.spark.sql.connector.expressions.filter.Not;
import org.apache.spark.sql.connector.expressions.filter.Or;
import org.apache.spark.sql.connector.expressions.filter.Predicate;
import org.apache.spark.sql.types.DataType;
import org.apache.spark.sql.types.DataTypes;
import org.apache.spark.sql.types.Decimal;
import org.apache.spark.unsafe.types.UTF8String;
import org.junit.jupiter.api.Test;

class FilterSqlTest {
  private static final Schema SCHEMA =
      new Schema(
          List.of(
              Field.nullable("n", new ArrowType.Int(32, true)),
              Field.nullable("u", new ArrowType.Int(64, false)),
              Field.nullable("s", ArrowType.LargeUtf8.INSTANCE),
              Field.nullable("a \"b\"", ArrowType.Bool.INSTANCE),
              Field.nullable("f", new ArrowType.FloatingPoint(FloatingPointPrecision.DOUBLE)),
              Field.nullable("d", new ArrowType.Date(DateUnit.DAY)),
              Field.nullable("t", new ArrowType.Timestamp(TimeUnit.MICROSECOND, "UTC")),
              Field.nullable("ns", new ArrowType.Timestamp(TimeUnit.NANOSECOND, "UTC")),
              Field.nullable("p", new ArrowType.Decimal(9, 2, 128)),
              Field.nullable("twin", new ArrowType.Int(32, true)),
              Field.nullable("twin", new ArrowType.Int(32, true))));

  private static Predicate is(String column, String name, Object value, DataType type) {
    return new Predicate(name, new Expression[] {Expressions.column(quote(column)), new LiteralValue<>(value, type)});
  }

  private static String quote(String column) {
    return "`" + column + "`";
  }

  private static Optional<String> sql(Predicate predicate) {
    return new FilterSql(SCHEMA).translate(predicate);
  }

  @Test
  void whatMeansTheSameIsSaid() {
    UTF8String text = UTF8String.fromString("it's");
    assertEquals(Optional.of("(\"n\" = 5)"), sql(is("n", "=", 5, DataTypes.IntegerType)));
    assertEquals(Optional.of("(\"n\" IS NOT DISTINCT FROM 5)"), sql(is("n", "<=>", 5, DataTypes.IntegerType)));
    assertEquals(Optional.of("(\"s\" < 'it''s')"), sql(is("s", "<", text, DataTypes.StringType)));
    assertEquals(Optional.of("starts_with(\"s\", 'it''s')"), sql(is("s", "STARTS_WITH", text, DataTypes.StringType)));
    assertEquals(Optional.of("(\"a \"\"b\"\"\" = true)"), sql(is("a \"b\"", "=", true, DataTypes.BooleanType)));
    assertEquals(Optional.of("(\"d\" >= CAST('1970-01-02' AS DATE))"), sql(is("d", ">=", 1, DataTypes.DateType)));
    assertEquals(
        Optional.of("(\"p\" = CAST('1.50' AS DECIMAL(9, 2)))"),
        sql(is("p", "=", Decimal.apply(new java.math.BigDecimal("1.50"), 9, 2), DataTypes.createDecimalType(9, 2))));
    assertEquals(
        Optional.of("(\"t\" < CAST('1969-12-31 23:59:59.999993' AS TIMESTAMP(6)))"), sql(is("t", "<", -7L, DataTypes.TimestampType)));
  }

  @Test
  void aLiteralOnTheLeftTurnsTheComparisonAround() {
    Expression[] parts = {new LiteralValue<>(3, DataTypes.IntegerType), Expressions.column("n")};
    assertEquals(Optional.of("(\"n\" > 3)"), sql(new Predicate("<", parts)));
  }

  @Test
  void junctionsAreSaidWholeOrNotAtAll() {
    Predicate good = is("n", ">", 1, DataTypes.IntegerType);
    Predicate floats = is("f", ">", 1.0, DataTypes.DoubleType);
    assertEquals(Optional.of("((\"n\" > 1) OR (NOT (\"n\" > 1)))"), sql(new Or(good, new Not(good))));
    assertEquals(Optional.empty(), sql(new Or(good, floats)));
    assertEquals(Optional.empty(), sql(new And(good, floats)));
    assertEquals(Optional.empty(), sql(new Not(floats)));
  }

  @Test
  void whatMayMeanSomethingElseStaysWithSpark() {
    for (Predicate predicate :
        List.of(
            is("f", "=", 0.0, DataTypes.DoubleType),
            is("u", ">", 1L, DataTypes.LongType),
            is("ns", "<", 7L, DataTypes.TimestampType),
            is("t", "<", Long.MAX_VALUE, DataTypes.TimestampType),
            is("n", "=", null, DataTypes.IntegerType),
            is("n", "=", Long.MIN_VALUE, DataTypes.LongType),
            is("twin", "=", 1, DataTypes.IntegerType),
            is("nix", "=", 1, DataTypes.IntegerType),
            is("d", "=", -800_000_000, DataTypes.DateType),
            is("p", "=", Decimal.apply(new java.math.BigDecimal("1.505"), 9, 3), DataTypes.createDecimalType(9, 3)))) {
      assertEquals(Optional.empty(), sql(predicate), predicate.toString());
    }
    Expression[] nested = {Expressions.column("s.x"), new LiteralValue<>(3, DataTypes.IntegerType)};
    assertEquals(Optional.empty(), sql(new Predicate("=", nested)));
  }
}
