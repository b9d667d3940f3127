package io.forebay.spark;

import static org.junit.jupiter.api.Assertions.assertEquals;

import java.time.ZoneId;
import java.util.Arrays;
import java.util.LinkedHashSet;
import java.util.Map;
import org.apache.spark.sql.connector.expressions.Expression;
import org.apache.spark.sql.connector.expressions.Expressions;
import org.apache.spark.sql.connector.expressions.LiteralValue;
import org.apache.spark.sql.connector.expressions.filter.And;
import org.apache.spark.sql.connector.expressions.filter.Not;
import org.apache.spark.sql.connector.expressions.filter.Or;
import org.apache.spark.sql.connector.expressions.filter.Predicate;
import org.apache.spark.sql.types.DataType;
import org.apache.spark.sql.types.DataTypes;
import org.apache.spark.sql.types.StructType;
import org.junit.jupiter.api.Test;

class FolderPruningTest {
  private static final StructType SCHEMA =
      new StructType().add("x", DataTypes.DoubleType).add("day", DataTypes.IntegerType).add("f", DataTypes.DoubleType);

  private static final FolderPruning PRUNING =
      new FolderPruning(
          SCHEMA,
          new FolderTable(
              Map.of(
                  "day", new LinkedHashSet<>(Arrays.asList("1", "01", "2", "3", null)),
                  "f", new LinkedHashSet<>(Arrays.asList("-0.0", "0", "NaN")))),
          new FolderTypes(DataTypes.TimestampType, ZoneId.of("UTC")));

  private static Predicate is(String column, String name, Object value, DataType type) {
    return new Predicate(name, new Expression[] {Expressions.column(column), new LiteralValue<>(value, type)});
  }

  private static Predicate day(String name, int value) {
    return is("day", name, value, DataTypes.IntegerType);
  }

  private static Predicate f(String name, double value) {
    return is("f", name, value, DataTypes.DoubleType);
  }

  private static Predicate x() {
    return is("x", ">", 1.0, DataTypes.DoubleType);
  }

  private static Predicate ofDay(String name) {
    return new Predicate(name, new Expression[] {Expressions.column("day")});
  }

  private static String sql(Predicate predicate) {
    return PRUNING.translate(predicate).orElse("");
  }

  @Test
  void foldersAreLeftOutByValueAndNamedByText() {
    assertEquals("(\"day\" NOT IN ('2', '3'))", sql(day("=", 1)));
    assertEquals("(\"day\" NOT IN ('1', '01'))", sql(day("<>", 1)));
    assertEquals("(\"day\" NOT IN ('1', '01'))", sql(day(">", 1)));
    assertEquals("(\"day\" NOT IN ('3'))", sql(day("<=", 2)));
    assertEquals("(\"day\" NOT IN ('1', '01', '2', '3'))", sql(day("=", 9)), "a folder that comes meanwhile is read");
    Expression[] mirrored = {new LiteralValue<>(2, DataTypes.IntegerType), Expressions.column("day")};
    assertEquals("(\"day\" NOT IN ('1', '01', '2'))", sql(new Predicate("<", mirrored)));
    Expression[] in = {Expressions.column("day"), new LiteralValue<>(1, DataTypes.IntegerType), new LiteralValue<>(3, DataTypes.IntegerType)};
    assertEquals("(\"day\" NOT IN ('2'))", sql(new Predicate("IN", in)));
  }

  @Test
  void whatMayBeTrueOfNullKeepsIt() {
    assertEquals("(\"day\" IS NULL OR \"day\" NOT IN ('1', '01', '2', '3'))", sql(ofDay("IS_NULL")));
    assertEquals("(\"day\" IS NOT NULL)", sql(ofDay("IS_NOT_NULL")));
    assertEquals("(\"day\" IS NULL OR \"day\" NOT IN ('2', '3'))", sql(new Or(day("=", 1), ofDay("IS_NULL"))));
    assertEquals("(\"day\" NOT IN ('1', '01'))", sql(new Not(day("=", 1))));
  }

  @Test
  void whatIsNotKnownLeavesNothingOut() {
    assertEquals("", sql(x()));
    assertEquals("", sql(new Or(x(), day("=", 1))));
    assertEquals("(\"day\" NOT IN ('2', '3'))", sql(new And(x(), day("=", 1))));
    assertEquals("(\"day\" NOT IN ('3'))", sql(new Or(new And(x(), day("=", 1)), day("=", 2))));
    assertEquals("", sql(new Not(new And(x(), day("=", 1)))));
    assertEquals("", sql(is("day", "=", 1L, DataTypes.LongType)), "of another type");
    assertEquals("", sql(new And(day("=", 1), f("=", 0))), "of two columns");
  }

  @Test
  void numbersAreOrderedAsSparkDoes() {
    assertEquals("(\"f\" NOT IN ('NaN'))", sql(f("=", 0)));
    assertEquals("(\"f\" NOT IN ('-0.0', '0'))", sql(f(">", 1e300)));
    assertEquals("(\"f\" NOT IN ('-0.0', '0'))", sql(f("=", Double.NaN)));
  }
}
