package io.forebay.spark;

import java.net.URI;
import java.util.Arrays;
import org.apache.spark.sql.connector.read.InputPartition;

/** A part to read: the ticket of its endpoint, and how to get a new one when it has expired. */
final class PartPartition implements InputPartition {
  private static final long serialVersionUID = 1;

  private final byte[] ticket;
  private final URI[] locations;
  private final String command;
  private final int endpoint;

  PartPartition(byte[] ticket, URI[] locations, String command, int endpoint) {
    this.ticket = ticket;
    this.locations = locations;
    this.command = command;
    this.endpoint = endpoint;
  }

  byte[] ticket() {
    return ticket;
  }

  /** The descriptor that the ticket came from; {@code null} where it may answer otherwise by now. */
  String command() {
    return command;
  }

  /** The position of the endpoint in the answer to the command. */
  int endpoint() {
    return endpoint;
  }

  /** Where the part is held. Without any, the server that was asked. */
  Server server(Server asked) {
    return locations.length == 0 ? asked : asked.at(locations[0]);
  }

  @Override
  public String[] preferredLocations() {
    return Arrays.stream(locations).map(URI::getHost).toArray(String[]::new);
  }
}
