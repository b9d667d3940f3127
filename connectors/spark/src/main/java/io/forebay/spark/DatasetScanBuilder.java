package io.forebay.spark;

import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Optional;
import java.util.Set;
import org.apache.arrow.flight.FlightInfo;
import org.apache.spark.sql.connector.expressions.filter.Predicate;
import org.apache.spark.sql.connector.read.Scan;
import org.apache.spark.sql.connector.read.SupportsPushDownLimit;
import org.apache.spark.sql.connector.read.SupportsPushDownRequiredColumns;
import org.apache.spark.sql.connector.read.SupportsPushDownV2Filters;
import org.apache.spark.sql.types.StructField;
import org.apache.spark.sql.types.StructType;

/**
 * Finds out what of a read the server can do: columns, those predicates that {@link FilterSql} can say, folders that others leave out
 * ({@link FolderPruning}), and a limit. It looks at the dataset once, and the scan reads the version that was there then, whatever is
 * published meanwhile.
 */
final class DatasetScanBuilder implements SupportsPushDownV2Filters, SupportsPushDownRequiredColumns, SupportsPushDownLimit {
  /** Most bytes of a filter that the server takes. */
  private static final int FILTER_BYTES_MAX = 64 << 10;

  /** Above it the parts are better read side by side: a limit goes over all of them in one stream. */
  private static final int LIMIT_MAX = 1 << 20;

  private final Options options;
  private final StructType full;
  private FlightInfo head;
  private Long version;
  private FolderTable folders;
  private StructType read;
  private Predicate[] pushed = new Predicate[0];
  private String filter;
  private Long limit;

  DatasetScanBuilder(Options options, StructType schema) {
    this.options = options;
    this.full = schema;
    this.read = schema;
  }

  /** What there is, looked at once. A stream may be made before there is anything. */
  private FlightInfo head() throws IOException {
    if (head == null) {
      try (Connection server = Connection.open(options.server())) {
        head = server.info(Command.dataset(options.path()).with("version", options.version()));
        version = Note.of(head).version();
        checkSchema(ArrowTypes.toSpark(Note.schema(head)));
      }
    }
    return head;
  }

  /** The columns asked for must be there with their types, or be of folders: the schema may be one that a user said. */
  private void checkSchema(StructType found) throws IOException {
    for (StructField field : full.fields()) {
      boolean same = Arrays.stream(found.fields()).anyMatch(f -> f.name().equals(field.name()) && same(f, field));
      if (!same && !(FolderTypes.isReadAs(field.dataType()) && folders().has(field.name()))) {
        throw new IllegalArgumentException(
            options.path() + " has no column \"" + field.name() + "\" of type " + field.dataType().simpleString() + "; it has " + found.simpleString());
      }
    }
  }

  /** Which columns are of folders, looked at once. */
  private FolderTable folders() throws IOException {
    if (folders == null) {
      folders = FolderTable.NONE;
      if (version == null) {
        try (Connection server = Connection.open(options.server())) {
          folders = FolderTable.look(server, options.path(), Note.schema(head));
        }
      }
    }
    return folders;
  }

  private static boolean same(StructField a, StructField b) {
    return a.dataType().asNullable().equals(b.dataType().asNullable());
  }

  @Override
  public Predicate[] pushPredicates(Predicate[] predicates) {
    try {
      FilterSql sql = new FilterSql(Note.schema(head()));
      List<Predicate> said = new ArrayList<>();
      List<String> parts = new ArrayList<>();
      int bytes = 0;
      for (Predicate predicate : predicates) {
        Optional<String> whole = sql.translate(predicate);
        Optional<String> part = whole.isPresent() ? whole : new FolderPruning(full, folders(), FolderTypes.ofSession()).translate(predicate);
        int more = part.map(text -> text.getBytes(StandardCharsets.UTF_8).length + " AND ".length()).orElse(0);
        if (part.isPresent() && bytes + more <= FILTER_BYTES_MAX) {
          parts.add(part.get());
          bytes += more;
          if (whole.isPresent()) {
            said.add(predicate);
          }
        }
      }
      if (parts.isEmpty() || !isTaken(String.join(" AND ", parts))) {
        return predicates;
      }
      pushed = said.toArray(Predicate[]::new);
      filter = String.join(" AND ", parts);
      return Arrays.stream(predicates).filter(p -> !said.contains(p)).toArray(Predicate[]::new);
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
  }

  /** A server of another version may know fewer expressions; then Spark filters. */
  private boolean isTaken(String sql) throws IOException {
    try (Connection server = Connection.open(options.server())) {
      server.info(Command.dataset(options.path()).with("version", version).with("filter", sql));
      return true;
    } catch (ForebayException e) {
      if (e.code().equals("INVALID_ARGUMENT")) {
        return false;
      }
      throw e;
    }
  }

  @Override
  public Predicate[] pushedPredicates() {
    return pushed;
  }

  @Override
  public boolean pushLimit(int rows) {
    if (rows > LIMIT_MAX) {
      return false;
    }
    limit = (long) rows;
    return true;
  }

  /** One stream goes over all parts and ends at the limit: nothing is left for Spark to cut. */
  @Override
  public boolean isPartiallyPushed() {
    return false;
  }

  /** Whole columns: of a struct Spark may want less, and takes more. */
  @Override
  public void pruneColumns(StructType required) {
    Set<String> names = Set.of(required.fieldNames());
    read = new StructType(Arrays.stream(full.fields()).filter(f -> names.contains(f.name())).toArray(StructField[]::new));
  }

  @Override
  public Scan build() {
    return new DatasetScan(options, full, read, filter, limit, this::head);
  }
}
