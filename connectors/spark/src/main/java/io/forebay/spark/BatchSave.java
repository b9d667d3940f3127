package io.forebay.spark;

import io.grpc.Status;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import org.apache.spark.sql.Column;
import org.apache.spark.sql.Dataset;
import org.apache.spark.sql.Row;
import org.apache.spark.sql.SQLContext;
import org.apache.spark.sql.SaveMode;
import org.apache.spark.sql.sources.BaseRelation;
import org.apache.spark.sql.types.BooleanType;
import org.apache.spark.sql.types.DataType;
import org.apache.spark.sql.types.DateType;
import org.apache.spark.sql.types.NumericType;
import org.apache.spark.sql.types.StringType;
import org.apache.spark.sql.types.StructField;
import org.apache.spark.sql.types.StructType;
import org.apache.spark.sql.types.TimestampNTZType;
import org.apache.spark.sql.types.TimestampType;
import org.apache.spark.sql.util.CaseInsensitiveStringMap;

/** One {@code df.write.format("forebay")…save(path)}: says Spark's save mode in the server's words and writes through a session. */
final class BatchSave {
  /** Under this name Spark hands over what {@code partitionBy} said. */
  private static final String PARTITION_COLUMNS = "__partition_columns";

  private static final String PARTITION_OVERWRITE_MODE = "spark.sql.sources.partitionOverwriteMode";

  private final SQLContext context;
  private final CaseInsensitiveStringMap given;
  private final Options options;

  BatchSave(SQLContext context, CaseInsensitiveStringMap given) {
    this.context = context;
    this.given = given;
    this.options = Options.parse(given);
  }

  BaseRelation save(SaveMode mode, Dataset<Row> data) {
    List<String> folders = Folders.names(given.get(PARTITION_COLUMNS));
    String wanted = options.mode() != null ? options.mode() : mode(mode);
    try {
      write(wanted, data, folders.stream().map(name -> field(data.schema(), name)).toList());
    } catch (RuntimeException e) {
      if (mode != SaveMode.Ignore || options.mode() != null || !isThere(e)) {
        throw e;
      }
    }
    return new Written(context, data.schema(), options.path());
  }

  private static String mode(SaveMode mode) {
    return switch (mode) {
      case Append -> "append";
      case Overwrite -> "overwrite";
      case ErrorIfExists, Ignore -> "create";
    };
  }

  private void write(String mode, Dataset<Row> data, List<StructField> folders) {
    Map<String, String> inner = new HashMap<>(given.asCaseSensitiveMap());
    inner.remove(PARTITION_COLUMNS);
    inner.put(Options.MODE, mode);
    boolean joins = mode.equals("append");
    if (!folders.isEmpty()) {
      String partitions = given.getOrDefault(Options.PARTITION_OVERWRITE_MODE, context.getConf(PARTITION_OVERWRITE_MODE, "static"));
      inner.put(Options.PARTITION_OVERWRITE_MODE.toLowerCase(Locale.ROOT), partitions);
      inner.put(Options.FOLDERS, Folders.json(folders.stream().map(StructField::name).toList()));
      joins |= partitions.equalsIgnoreCase("dynamic");
    }
    Dataset<Row> rows = joins ? inOrder(data, folders) : data;
    if (!folders.isEmpty()) {
      rows = withTexts(rows, folders);
    }
    rows.write().format(SessionProvider.class.getName()).options(inner).mode(SaveMode.Append).save();
  }

  /** A column that names folders. */
  private StructField field(StructType schema, String name) {
    boolean exact = Boolean.parseBoolean(context.getConf("spark.sql.caseSensitive", "false"));
    StructField field =
        Arrays.stream(schema.fields())
            .filter(each -> exact ? each.name().equals(name) : each.name().equalsIgnoreCase(name))
            .findFirst()
            .orElseThrow(() -> new IllegalArgumentException("partitionBy: there is no column \"" + name + "\"; there are " + schema.simpleString()));
    if (!isText(field.dataType())) {
      throw new IllegalArgumentException(
          "partitionBy: folders are not named by " + field.dataType().simpleString() + ", which column \"" + field.name()
              + "\" is; cast it to a string, a number, a boolean, a date or a timestamp");
    }
    return field;
  }

  /** Whether each value has one text. */
  private static boolean isText(DataType type) {
    return type instanceof StringType
        || type instanceof NumericType
        || type instanceof BooleanType
        || type instanceof DateType
        || type instanceof TimestampType
        || type instanceof TimestampNTZType;
  }

  /** The columns that are written, and behind them the texts that name their folders, as Spark makes them of values. */
  private static Dataset<Row> withTexts(Dataset<Row> data, List<StructField> folders) {
    List<String> keys = folders.stream().map(StructField::name).toList();
    List<Column> columns = new ArrayList<>();
    for (String name : data.schema().fieldNames()) {
      if (!keys.contains(name)) {
        columns.add(column(data, name));
      }
    }
    if (columns.isEmpty()) {
      throw new IllegalArgumentException("partitionBy names all columns; at least one is written into the folders");
    }
    for (int k = 0; k < keys.size(); k++) {
      columns.add(column(data, keys.get(k)).cast("string").as(FoldersWrite.text(k)));
    }
    return data.select(columns.toArray(Column[]::new));
  }

  private static Column column(Dataset<Row> data, String name) {
    return data.col("`" + name.replace("`", "``") + "`");
  }

  /** Columns in the dataset's order where they are the same ones, as Spark resolves them by name for tables. */
  private Dataset<Row> inOrder(Dataset<Row> data, List<StructField> folders) {
    StructType there;
    try (Connection server = Connection.open(options.server())) {
      there = ArrowTypes.toSpark(server.schema(Command.dataset(options.path())));
    } catch (ForebayException e) {
      // What is wrong with folders is said before they are written.
      if (e.is(Status.Code.NOT_FOUND) || (!folders.isEmpty() && e.is(Status.Code.FAILED_PRECONDITION))) {
        return data;
      }
      throw new UncheckedIOException(e.getMessage(), e);
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
    List<String> ours = Arrays.asList(data.schema().fieldNames());
    List<String> theirs = Arrays.asList(there.fieldNames());
    if (ours.equals(theirs) || ours.size() != theirs.size() || !ours.containsAll(theirs)) {
      return data;
    }
    return data.select(theirs.stream().map(name -> column(data, name)).toArray(Column[]::new));
  }

  /** Whether a write failed because something is at its path. */
  private static boolean isThere(Throwable error) {
    for (Throwable cause = error; cause != null; cause = cause.getCause()) {
      if (cause instanceof ForebayException known && known.is(Status.Code.ALREADY_EXISTS)) {
        return true;
      }
    }
    return false;
  }

  /** What Spark wants to know of a table that was written. */
  private static final class Written extends BaseRelation {
    private final SQLContext context;
    private final StructType schema;
    private final String path;

    Written(SQLContext context, StructType schema, String path) {
      this.context = context;
      this.schema = schema;
      this.path = path;
    }

    @Override
    public SQLContext sqlContext() {
      return context;
    }

    @Override
    public StructType schema() {
      return schema;
    }

    @Override
    public String toString() {
      return "forebay " + path;
    }
  }
}
