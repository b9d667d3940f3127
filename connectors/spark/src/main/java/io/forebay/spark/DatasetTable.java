package io.forebay.spark;

import java.util.Set;
import org.apache.spark.sql.connector.catalog.SupportsRead;
import org.apache.spark.sql.connector.catalog.SupportsWrite;
import org.apache.spark.sql.connector.catalog.TableCapability;
import org.apache.spark.sql.connector.read.ScanBuilder;
import org.apache.spark.sql.connector.write.LogicalWriteInfo;
import org.apache.spark.sql.connector.write.WriteBuilder;
import org.apache.spark.sql.types.StructType;
import org.apache.spark.sql.util.CaseInsensitiveStringMap;

/** One dataset as Spark's table. What it can do is told by who made it: {@link ForebayProvider} or {@link SessionProvider}. */
final class DatasetTable implements SupportsRead, SupportsWrite {
  private final String path;
  private final StructType schema;
  private final Set<TableCapability> capabilities;

  DatasetTable(String path, StructType schema, Set<TableCapability> capabilities) {
    this.path = path;
    this.schema = schema;
    this.capabilities = capabilities;
  }

  @Override
  public String name() {
    return "forebay " + path;
  }

  @Override
  @SuppressWarnings("deprecation") // columns() is made from it, in every version of Spark
  public StructType schema() {
    return schema;
  }

  @Override
  public Set<TableCapability> capabilities() {
    return capabilities;
  }

  @Override
  public ScanBuilder newScanBuilder(CaseInsensitiveStringMap options) {
    return new DatasetScanBuilder(Options.parse(options), schema);
  }

  @Override
  public WriteBuilder newWriteBuilder(LogicalWriteInfo info) {
    return new SessionWriteBuilder(Options.parse(info.options()), info);
  }
}
