package io.forebay.spark;

import java.io.IOException;
import java.io.UncheckedIOException;
import java.net.URI;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.OptionalLong;
import org.apache.arrow.flight.FlightEndpoint;
import org.apache.arrow.flight.FlightInfo;
import org.apache.arrow.flight.Location;
import org.apache.spark.sql.connector.read.Batch;
import org.apache.spark.sql.connector.read.InputPartition;
import org.apache.spark.sql.connector.read.PartitionReaderFactory;
import org.apache.spark.sql.connector.read.Scan;
import org.apache.spark.sql.connector.read.Statistics;
import org.apache.spark.sql.connector.read.SupportsReportStatistics;
import org.apache.spark.sql.connector.read.streaming.MicroBatchStream;
import org.apache.spark.sql.types.StructType;

/** A read of one version: a partition for each endpoint, which is a part of the dataset. */
final class DatasetScan implements Scan, Batch, SupportsReportStatistics {
  /** What there was when the scan was built. */
  interface Head {
    FlightInfo get() throws IOException;
  }

  private final Options options;
  private final StructType full;
  private final StructType read;
  private final String filter;
  private final Long limit;
  private final Head head;

  DatasetScan(Options options, StructType full, StructType read, String filter, Long limit, Head head) {
    this.options = options;
    this.full = full;
    this.read = read;
    this.filter = filter;
    this.limit = limit;
    this.head = head;
  }

  @Override
  public StructType readSchema() {
    return read;
  }

  @Override
  public String description() {
    StringBuilder text = new StringBuilder("forebay ").append(options.path());
    text.append(" columns [").append(String.join(", ", read.fieldNames())).append("]");
    if (options.version() != null) {
      text.append(" version ").append(options.version());
    }
    if (filter != null) {
      text.append(" filter ").append(filter);
    }
    if (limit != null) {
      text.append(" limit ").append(limit);
    }
    return text.toString();
  }

  @Override
  public String toString() {
    return description();
  }

  /** Columns to ask for: none said is all, as they are stored. */
  private static List<String> columns(StructType full, StructType read) {
    return Arrays.equals(full.fieldNames(), read.fieldNames()) ? null : List.of(read.fieldNames());
  }

  private Command command() throws IOException {
    return Command.dataset(options.path())
        .with("version", Note.of(head.get()).version())
        .with("columns", columns(wholeSchema(), read))
        .with("filter", filter)
        .with("limit", limit);
  }

  private StructType wholeSchema() throws IOException {
    return ArrowTypes.toSpark(Note.schema(head.get()));
  }

  @Override
  public Statistics estimateStatistics() {
    FlightInfo info;
    try {
      info = head.get();
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
    OptionalLong rows = known(info.getRecords());
    long share = Math.max(1, read.isEmpty() ? 1 : read.defaultSize());
    OptionalLong bytes = known(info.getBytes());
    OptionalLong scaled = bytes.isPresent() ? OptionalLong.of((long) (bytes.getAsLong() * ((double) share / full.defaultSize()))) : bytes;
    return new Statistics() {
      @Override
      public OptionalLong sizeInBytes() {
        return scaled;
      }

      @Override
      public OptionalLong numRows() {
        return limit != null && rows.isPresent() ? OptionalLong.of(Math.min(limit, rows.getAsLong())) : rows;
      }
    };
  }

  private static OptionalLong known(long count) {
    return count < 0 ? OptionalLong.empty() : OptionalLong.of(count);
  }

  @Override
  public Batch toBatch() {
    return this;
  }

  @Override
  public InputPartition[] planInputPartitions() {
    try (Connection server = Connection.open(options.server())) {
      Command command = command();
      return partitions(server.info(command), command);
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
  }

  /** A partition for each endpoint. */
  static InputPartition[] partitions(FlightInfo info, Command command) throws ForebayException {
    // Only a version's endpoints are the same when they are asked for again.
    String again = Note.of(info).version() == null ? null : command.toString();
    List<FlightEndpoint> endpoints = info.getEndpoints();
    List<InputPartition> partitions = new ArrayList<>();
    for (int k = 0; k < endpoints.size(); k++) {
      FlightEndpoint endpoint = endpoints.get(k);
      URI[] locations = endpoint.getLocations().stream().map(Location::getUri).filter(uri -> uri.getHost() != null).toArray(URI[]::new);
      partitions.add(new PartPartition(endpoint.getTicket().getBytes(), locations, again, k));
    }
    return partitions.toArray(InputPartition[]::new);
  }

  @Override
  public PartitionReaderFactory createReaderFactory() {
    return new PartReaderFactory(options.server(), read);
  }

  @Override
  public MicroBatchStream toMicroBatchStream(String checkpointLocation) {
    return new VersionStream(options, full, read);
  }
}
