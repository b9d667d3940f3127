package io.forebay.spark;

import java.time.Instant;
import java.time.LocalDate;
import java.time.LocalDateTime;
import java.time.ZoneOffset;
import java.time.format.DateTimeFormatter;
import java.time.temporal.ChronoUnit;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.function.Function;
import java.util.stream.Collectors;
import org.apache.arrow.vector.types.DateUnit;
import org.apache.arrow.vector.types.TimeUnit;
import org.apache.arrow.vector.types.pojo.ArrowType;
import org.apache.arrow.vector.types.pojo.Field;
import org.apache.arrow.vector.types.pojo.Schema;
import org.apache.spark.sql.connector.expressions.Expression;
import org.apache.spark.sql.connector.expressions.Literal;
import org.apache.spark.sql.connector.expressions.NamedReference;
import org.apache.spark.sql.connector.expressions.filter.Predicate;
import org.apache.spark.sql.types.DataTypes;
import org.apache.spark.sql.types.Decimal;
import org.apache.spark.unsafe.types.UTF8String;

/**
 * Says Spark's predicates as the SQL expression that the server filters by, where both mean the same for every value. The rest stays with
 * Spark: comparisons of floats (Spark takes 0.0 and -0.0 for equal and orders NaN on its own), of binary, nested and nanosecond columns,
 * and everything that computes.
 */
final class FilterSql {
  private static final Map<String, String> COMPARISONS =
      Map.of("=", "=", "<>", "<>", "<=>", "IS NOT DISTINCT FROM", "<", "<", "<=", "<=", ">", ">", ">=", ">=");

  private static final Map<String, String> MIRRORED =
      Map.of("=", "=", "<>", "<>", "<=>", "<=>", "<", ">", "<=", ">=", ">", "<", ">=", "<=");

  private static final Map<String, String> STRING_FUNCTIONS =
      Map.of("STARTS_WITH", "starts_with", "ENDS_WITH", "ends_with", "CONTAINS", "contains");

  private static final DateTimeFormatter MICROS = DateTimeFormatter.ofPattern("uuuu-MM-dd HH:mm:ss.SSSSSS");

  private final Map<String, Field> columns;

  /** For columns of {@code schema}. A name that two columns bear is none to filter by. */
  FilterSql(Schema schema) {
    Map<String, List<Field>> named = schema.getFields().stream().collect(Collectors.groupingBy(Field::getName));
    columns =
        named.entrySet().stream()
            .filter(e -> e.getValue().size() == 1)
            .collect(Collectors.toMap(Map.Entry::getKey, e -> e.getValue().get(0)));
  }

  /** The expression that keeps the very rows that {@code predicate} keeps; nothing where there is none. */
  Optional<String> translate(Predicate predicate) {
    return Optional.ofNullable(sql(predicate));
  }

  private String sql(Expression expression) {
    if (!(expression instanceof Predicate predicate)) {
      return null;
    }
    Expression[] parts = predicate.children();
    return switch (predicate.name()) {
      case "AND", "OR" -> junction(predicate.name(), parts);
      case "NOT" -> around("(NOT %s)", sql(parts[0]));
      case "ALWAYS_TRUE" -> "true";
      case "ALWAYS_FALSE" -> "false";
      case "IS_NULL" -> around("(%s IS NULL)", column(parts[0]).map(FilterSql::quoted).orElse(null));
      case "IS_NOT_NULL" -> around("(%s IS NOT NULL)", column(parts[0]).map(FilterSql::quoted).orElse(null));
      case "IN" -> in(parts);
      case "STARTS_WITH", "ENDS_WITH", "CONTAINS" -> string(predicate.name(), parts);
      default -> COMPARISONS.containsKey(predicate.name()) ? comparison(predicate.name(), parts) : null;
    };
  }

  private String junction(String name, Expression[] parts) {
    List<String> said = new ArrayList<>();
    for (Expression part : parts) {
      String sql = sql(part);
      if (sql == null) {
        return null;
      }
      said.add(sql);
    }
    return "(" + String.join(" " + name + " ", said) + ")";
  }

  private String comparison(String name, Expression[] parts) {
    if (parts[0] instanceof Literal<?> literal && !(parts[1] instanceof Literal<?>)) {
      return compared(parts[1], MIRRORED.get(name), literal);
    }
    return parts[1] instanceof Literal<?> literal ? compared(parts[0], name, literal) : null;
  }

  private String compared(Expression left, String name, Literal<?> literal) {
    return column(left)
        .flatMap(field -> literal(field, literal).map(value -> "(" + quoted(field) + " " + COMPARISONS.get(name) + " " + value + ")"))
        .orElse(null);
  }

  private String in(Expression[] parts) {
    Optional<Field> field = column(parts[0]);
    if (field.isEmpty() || parts.length < 2) {
      return null;
    }
    List<String> values = new ArrayList<>();
    for (int k = 1; k < parts.length; k++) {
      Optional<String> value = parts[k] instanceof Literal<?> literal ? literal(field.get(), literal) : Optional.empty();
      if (value.isEmpty()) {
        return null;
      }
      values.add(value.get());
    }
    return "(" + quoted(field.get()) + " IN (" + String.join(", ", values) + "))";
  }

  private String string(String name, Expression[] parts) {
    Optional<Field> field = column(parts[0]).filter(f -> isString(f.getType()) && f.getDictionary() == null);
    if (field.isEmpty() || !(parts[1] instanceof Literal<?> literal)) {
      return null;
    }
    String function = STRING_FUNCTIONS.get(name);
    return literal(field.get(), literal).map(value -> function + "(" + quoted(field.get()) + ", " + value + ")").orElse(null);
  }

  private Optional<Field> column(Expression expression) {
    if (expression instanceof NamedReference reference && reference.fieldNames().length == 1) {
      return Optional.ofNullable(columns.get(reference.fieldNames()[0]));
    }
    return Optional.empty();
  }

  /** A value that the column can be compared with, exactly. */
  private static Optional<String> literal(Field field, Literal<?> literal) {
    Object value = literal.value();
    if (value == null) {
      return Optional.empty();
    }
    Function<ArrowType, String> say =
        type ->
            switch (type.getTypeID()) {
              case Bool -> value instanceof Boolean truth ? truth.toString() : null;
              case Int -> whole((ArrowType.Int) type, value);
              case Utf8, LargeUtf8, Utf8View -> text(literal);
              case Date -> date((ArrowType.Date) type, value);
              case Timestamp -> timestamp((ArrowType.Timestamp) type, value);
              case Decimal -> decimal((ArrowType.Decimal) type, value);
              default -> null;
            };
    return Optional.ofNullable(say.apply(field.getType()));
  }

  private static String whole(ArrowType.Int type, Object value) {
    boolean number = value instanceof Byte || value instanceof Short || value instanceof Integer || value instanceof Long;
    boolean wide = type.getBitWidth() == 64 && !type.getIsSigned();
    // The smallest long is no literal of SQL: it is the negative of a number that is none.
    return number && !wide && ((Number) value).longValue() != Long.MIN_VALUE ? value.toString() : null;
  }

  private static String text(Literal<?> literal) {
    // A collation of its own compares otherwise than by bytes.
    boolean bytewise = literal.dataType().equals(DataTypes.StringType);
    return bytewise && literal.value() instanceof UTF8String text ? "'" + text.toString().replace("'", "''") + "'" : null;
  }

  private static String date(ArrowType.Date type, Object value) {
    if (type.getUnit() != DateUnit.DAY || !(value instanceof Integer days)) {
      return null;
    }
    LocalDate date = LocalDate.ofEpochDay(days);
    return isCalendarYear(date.getYear()) ? "CAST('" + date + "' AS DATE)" : null;
  }

  /** Without a zone, which the server then takes from the column. */
  private static String timestamp(ArrowType.Timestamp type, Object value) {
    boolean utc = type.getTimezone() == null || type.getTimezone().equals("UTC");
    if (type.getUnit() != TimeUnit.MICROSECOND || !utc || !(value instanceof Long micros)) {
      return null;
    }
    Instant at = Instant.EPOCH.plus(micros, ChronoUnit.MICROS);
    LocalDateTime local = LocalDateTime.ofInstant(at, ZoneOffset.UTC);
    return isCalendarYear(local.getYear()) ? "CAST('" + local.format(MICROS) + "' AS TIMESTAMP(6))" : null;
  }

  /** Years that SQL can write. */
  private static boolean isCalendarYear(int year) {
    return year >= 1 && year <= 9999;
  }

  private static String decimal(ArrowType.Decimal type, Object value) {
    if (!(value instanceof Decimal decimal) || decimal.scale() != type.getScale() || decimal.precision() > type.getPrecision()) {
      return null;
    }
    String plain = decimal.toJavaBigDecimal().toPlainString();
    return "CAST('" + plain + "' AS DECIMAL(" + type.getPrecision() + ", " + type.getScale() + "))";
  }

  private static boolean isString(ArrowType type) {
    return switch (type.getTypeID()) {
      case Utf8, LargeUtf8, Utf8View -> true;
      default -> false;
    };
  }

  private static String around(String format, String sql) {
    return sql == null ? null : String.format(format, sql);
  }

  private static String quoted(Field field) {
    return "\"" + field.getName().replace("\"", "\"\"") + "\"";
  }
}
