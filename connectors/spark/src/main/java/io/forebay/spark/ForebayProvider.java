package io.forebay.spark;

import io.grpc.Status;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.util.EnumSet;
import java.util.HashMap;
import java.util.Locale;
import java.util.Map;
import java.util.Set;
import org.apache.arrow.vector.types.pojo.Schema;
import org.apache.spark.sql.Dataset;
import org.apache.spark.sql.Row;
import org.apache.spark.sql.SQLContext;
import org.apache.spark.sql.SaveMode;
import org.apache.spark.sql.connector.catalog.SessionConfigSupport;
import org.apache.spark.sql.connector.catalog.Table;
import org.apache.spark.sql.connector.catalog.TableCapability;
import org.apache.spark.sql.connector.catalog.TableProvider;
import org.apache.spark.sql.connector.expressions.Transform;
import org.apache.spark.sql.internal.SQLConf;
import org.apache.spark.sql.sources.BaseRelation;
import org.apache.spark.sql.sources.CreatableRelationProvider;
import org.apache.spark.sql.sources.DataSourceRegister;
import org.apache.spark.sql.sources.RelationProvider;
import org.apache.spark.sql.types.DataType;
import org.apache.spark.sql.types.StructType;
import org.apache.spark.sql.util.CaseInsensitiveStringMap;
import scala.Tuple2;

/**
 * {@code format("forebay")}: datasets of a Forebay server as Spark tables, to read and write in batches and in streams. docs/spark.md
 * describes its options and what may be relied on.
 *
 * <p>Reads and streams are DataSource V2 from here on. A batch write comes in by the older door, because only there Spark says its save
 * mode ({@code errorifexists} and {@code ignore} never reach a V2 source without a catalog) and its {@code partitionBy}; {@link BatchSave}
 * then writes by DataSource V2 as well.
 */
public final class ForebayProvider
    implements TableProvider, DataSourceRegister, SessionConfigSupport, CreatableRelationProvider, RelationProvider {
  static final String NAME = "forebay";

  @Override
  public String shortName() {
    return NAME;
  }

  @Override
  public String keyPrefix() {
    return NAME;
  }

  @Override
  public boolean supportsExternalMetadata() {
    return true;
  }

  /** The schema of what is there; empty where nothing is, which a write makes good. */
  @Override
  public StructType inferSchema(CaseInsensitiveStringMap given) {
    Options options = Options.parse(given);
    try {
      return schema(options);
    } catch (ForebayException e) {
      if (e.is(Status.Code.NOT_FOUND)) {
        return new StructType();
      }
      throw new UncheckedIOException(e);
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
  }

  private static StructType schema(Options options) throws IOException {
    try (Connection server = Connection.open(options.server())) {
      Command command = Command.dataset(options.path()).with("wait", options.waitFor());
      command = options.follow() ? command.with("follow", true) : command.with("version", options.version());
      Schema stored = server.schema(command);
      StructType schema = ArrowTypes.toSpark(stored);
      boolean plain = options.follow() || options.version() != null || !SQLConf.get().partitionColumnTypeInferenceEnabled();
      return plain ? schema : FolderTable.look(server, options.path(), stored).typed(schema, FolderTypes.ofSession());
    }
  }

  @Override
  public Table getTable(StructType schema, Transform[] partitioning, Map<String, String> properties) {
    Set<TableCapability> can = EnumSet.of(TableCapability.STREAMING_WRITE, TableCapability.TRUNCATE, TableCapability.ACCEPT_ANY_SCHEMA);
    if (!schema.isEmpty()) {
      // Without a schema there is nothing to read, and Spark asks createRelation below, which says so.
      can.add(TableCapability.BATCH_READ);
      can.add(TableCapability.MICRO_BATCH_READ);
    }
    return new DatasetTable(Options.parse(new CaseInsensitiveStringMap(properties)).path(), schema, can);
  }

  /** A batch write. */
  @Override
  public BaseRelation createRelation(
      SQLContext context, SaveMode mode, scala.collection.immutable.Map<String, String> parameters, Dataset<Row> data) {
    return new BatchSave(context, options(context, parameters)).save(mode, data);
  }

  /** A read of what is not there. */
  @Override
  public BaseRelation createRelation(SQLContext context, scala.collection.immutable.Map<String, String> parameters) {
    Options options = Options.parse(options(context, parameters));
    try {
      schema(options);
    } catch (IOException e) {
      throw new UncheckedIOException(e.getMessage(), e);
    }
    throw new IllegalStateException(options.path() + " came into being just now; read it again");
  }

  /** All types that Arrow has; a write says which it has not. Not declared in every version of Spark. */
  public boolean supportsDataType(DataType type) {
    return true;
  }

  private static CaseInsensitiveStringMap options(SQLContext context, scala.collection.immutable.Map<String, String> parameters) {
    Map<String, String> options = new HashMap<>();
    for (String name : Options.NAMES) {
      String value = context.getConf("spark.datasource." + NAME + "." + name, null);
      if (value != null) {
        options.put(name.toLowerCase(Locale.ROOT), value);
      }
    }
    scala.collection.Iterator<Tuple2<String, String>> each = parameters.iterator();
    while (each.hasNext()) {
      Tuple2<String, String> option = each.next();
      options.put(option._1().toLowerCase(Locale.ROOT), option._2());
    }
    return new CaseInsensitiveStringMap(options);
  }
}
