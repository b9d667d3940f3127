package io.forebay.spark;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;

import java.nio.charset.StandardCharsets;
import java.util.List;
import org.apache.arrow.flight.FlightDescriptor;
import org.apache.arrow.flight.FlightEndpoint;
import org.apache.arrow.flight.FlightInfo;
import org.apache.arrow.flight.Location;
import org.apache.arrow.flight.Ticket;
import org.apache.arrow.vector.types.pojo.Schema;
import org.apache.spark.sql.connector.read.InputPartition;
import org.junit.jupiter.api.Test;

class PartPartitionTest {
  private static final Server ASKED = Server.parse("grpc+tls://front:1", "/ca.pem", new Secret("t"));

  private static FlightEndpoint endpoint(String ticket, Location... locations) {
    return new FlightEndpoint(new Ticket(ticket.getBytes(StandardCharsets.UTF_8)), locations);
  }

  private static PartPartition[] partitions(String note, FlightEndpoint... endpoints) throws Exception {
    FlightInfo info =
        FlightInfo.builder(new Schema(List.of()), FlightDescriptor.path("a"), List.of(endpoints))
            .setAppMetadata(note.getBytes(StandardCharsets.UTF_8))
            .build();
    InputPartition[] made = DatasetScan.partitions(info, Command.dataset("/a"));
    return java.util.Arrays.copyOf(made, made.length, PartPartition[].class);
  }

  /** What Spark's scheduler takes as a hint: it runs a task where its part is, if an executor there is free. */
  @Test
  void aPartIsWantedWhereItIsHeld() throws Exception {
    PartPartition[] parts =
        partitions(
            "{\"version\": 3}",
            endpoint("0", Location.forGrpcInsecure("worker-1", 7), Location.forGrpcInsecure("worker-2", 7)),
            endpoint("1", Location.forGrpcTls("worker-2", 8)),
            endpoint("2"),
            endpoint("3", Location.reuseConnection()));
    assertArrayEquals(new String[] {"worker-1", "worker-2"}, parts[0].preferredLocations());
    assertArrayEquals(new String[] {"worker-2"}, parts[1].preferredLocations());
    assertArrayEquals(new String[0], parts[2].preferredLocations(), "a single server tells none");
    assertArrayEquals(new String[0], parts[3].preferredLocations(), "nor does one that wants to be asked itself");
  }

  @Test
  void andReadThereInTheSameWayAsItWasAskedFor() throws Exception {
    PartPartition[] parts = partitions("{\"version\": 3}", endpoint("0", Location.forGrpcTls("worker-1", 7)), endpoint("1"));
    assertEquals(new Server("worker-1", 7, true, "/ca.pem", new Secret("t")), parts[0].server(ASKED));
    assertEquals(ASKED, parts[1].server(ASKED));
    assertEquals("1", new String(parts[1].ticket(), StandardCharsets.UTF_8));
    assertEquals(1, parts[1].endpoint());
  }

  @Test
  void ofAVersionTicketsCanBeHadAgain() throws Exception {
    assertEquals(Command.dataset("/a").toString(), partitions("{\"version\": 3}", endpoint("0"))[0].command());
    assertEquals(null, partitions("{\"version\": null}", endpoint("0"))[0].command(), "what is under way may answer otherwise");
  }
}
