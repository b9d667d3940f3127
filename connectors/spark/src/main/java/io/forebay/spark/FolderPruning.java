package io.forebay.spark;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Optional;
import java.util.Set;
import org.apache.spark.sql.connector.expressions.Expression;
import org.apache.spark.sql.connector.expressions.Literal;
import org.apache.spark.sql.connector.expressions.NamedReference;
import org.apache.spark.sql.connector.expressions.filter.Predicate;
import org.apache.spark.sql.types.DataType;
import org.apache.spark.sql.types.DataTypes;
import org.apache.spark.sql.types.StringType;
import org.apache.spark.sql.types.StructType;

/**
 * Leaves folders out that a predicate takes no row of, where it compares values and the server has texts ({@code day = 3}, by which
 * {@code day=3} and {@code day=03} are meant). The predicate is tried on the value of each text there is, and the texts of which it can
 * not be true are named to the server, so that a folder that came meanwhile is read. Spark filters all the same.
 */
final class FolderPruning {
  /** What a predicate may be, as bits. */
  private static final int TRUE = 1;

  private static final int FALSE = 2;
  private static final int NULL = 4;
  private static final int ANY = TRUE | FALSE | NULL;

  private final StructType schema;
  private final FolderTable folders;
  private final FolderTypes types;

  FolderPruning(StructType schema, FolderTable folders, FolderTypes types) {
    this.schema = schema;
    this.folders = folders;
    this.types = types;
  }

  /** An expression that is true of every row that {@code predicate} is true of; nothing where it leaves no folder out. */
  Optional<String> translate(Predicate predicate) {
    Set<String> columns = new LinkedHashSet<>();
    for (NamedReference reference : predicate.references()) {
      if (reference.fieldNames().length == 1 && folders.has(reference.fieldNames()[0])) {
        columns.add(reference.fieldNames()[0]);
      }
    }
    return columns.size() == 1 ? translate(predicate, columns.iterator().next()) : Optional.empty();
  }

  private Optional<String> translate(Predicate predicate, String column) {
    List<String> out = new ArrayList<>();
    boolean withNull = (new Trial(column, null).of(predicate) & TRUE) != 0;
    for (String text : folders.texts().get(column)) {
      if (text != null && !mayBeTrue(predicate, column, text)) {
        out.add("'" + text.replace("'", "''") + "'");
      }
    }
    String name = "\"" + column.replace("\"", "\"\"") + "\"";
    if (out.isEmpty()) {
      return withNull ? Optional.empty() : Optional.of("(" + name + " IS NOT NULL)");
    }
    // Of a null it is not true.
    String others = name + " NOT IN (" + String.join(", ", out) + ")";
    return Optional.of(withNull ? "(" + name + " IS NULL OR " + others + ")" : "(" + others + ")");
  }

  private boolean mayBeTrue(Predicate predicate, String column, String text) {
    try {
      Object value = types.value(text, schema.apply(column).dataType());
      return (new Trial(column, value).of(predicate) & TRUE) != 0;
    } catch (IllegalArgumentException e) {
      // Whoever reads it is told.
      return true;
    }
  }

  /** A predicate tried where {@code column} has one value and nothing is known of others. */
  private final class Trial {
    private final String column;
    private final DataType type;
    private final Object value;

    Trial(String column, Object value) {
      this.column = column;
      this.type = schema.apply(column).dataType();
      this.value = value;
    }

    int of(Expression expression) {
      if (!(expression instanceof Predicate predicate)) {
        return ANY;
      }
      Expression[] parts = predicate.children();
      return switch (predicate.name()) {
        case "AND" -> Arrays.stream(parts).mapToInt(this::of).reduce(TRUE, FolderPruning::and);
        case "OR" -> not(Arrays.stream(parts).mapToInt(this::of).map(FolderPruning::not).reduce(TRUE, FolderPruning::and));
        case "NOT" -> not(of(parts[0]));
        case "IS_NULL" -> isColumn(parts[0]) ? truth(value == null) : ANY;
        case "IS_NOT_NULL" -> isColumn(parts[0]) ? truth(value != null) : ANY;
        case "IN" -> in(parts);
        case "=", "<>", "<", "<=", ">", ">=" -> comparison(predicate.name(), parts);
        default -> ANY;
      };
    }

    private boolean isColumn(Expression expression) {
      return expression instanceof NamedReference reference
          && reference.fieldNames().length == 1
          && reference.fieldNames()[0].equals(column);
    }

    /** Whether a literal compares with the column by Java's order of their values. */
    private boolean fits(Expression expression) {
      boolean bytewise = !(type instanceof StringType) || type.equals(DataTypes.StringType);
      return expression instanceof Literal<?> literal && literal.value() != null && literal.dataType().equals(type) && bytewise;
    }

    private int in(Expression[] parts) {
      if (!isColumn(parts[0]) || !Arrays.stream(parts).skip(1).allMatch(this::fits)) {
        return ANY;
      }
      return value == null ? NULL : truth(Arrays.stream(parts).skip(1).anyMatch(part -> order(part) == 0));
    }

    private int comparison(String name, Expression[] parts) {
      if (isColumn(parts[0]) && fits(parts[1])) {
        return value == null ? NULL : truth(holds(name, order(parts[1])));
      } else if (isColumn(parts[1]) && fits(parts[0])) {
        return value == null ? NULL : truth(holds(name, -order(parts[0])));
      }
      return ANY;
    }

    /** How the value stands to that of a literal that fits. */
    private int order(Expression literal) {
      return FolderPruning.order(value, ((Literal<?>) literal).value());
    }
  }

  private static boolean holds(String name, int order) {
    return switch (name) {
      case "=" -> order == 0;
      case "<>" -> order != 0;
      case "<" -> order < 0;
      case "<=" -> order <= 0;
      case ">" -> order > 0;
      default -> order >= 0;
    };
  }

  /** As Spark orders values of one type: 0.0 and -0.0 are equal, NaN is above all. */
  @SuppressWarnings("unchecked")
  private static int order(Object a, Object b) {
    if (a instanceof Double x && b instanceof Double y) {
      return Double.compare(x + 0.0, y + 0.0);
    } else if (a instanceof Float x && b instanceof Float y) {
      return Float.compare(x + 0.0f, y + 0.0f);
    }
    return ((Comparable<Object>) a).compareTo(b);
  }

  private static int truth(boolean is) {
    return is ? TRUE : FALSE;
  }

  private static int not(int may) {
    return (may & TRUE) << 1 | (may & FALSE) >> 1 | may & NULL;
  }

  private static int and(int a, int b) {
    int both = a & b & TRUE | (a | b) & FALSE;
    boolean isNull = (a & NULL) != 0 && (b & (TRUE | NULL)) != 0 || (b & NULL) != 0 && (a & (TRUE | NULL)) != 0;
    return isNull ? both | NULL : both;
  }
}
