package io.forebay.spark;

import com.fasterxml.jackson.databind.JsonNode;
import io.grpc.ManagedChannel;
import io.grpc.netty.GrpcSslContexts;
import io.grpc.netty.NettyChannelBuilder;
import java.io.File;
import java.io.IOException;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.TimeUnit;
import org.apache.arrow.flight.Action;
import org.apache.arrow.flight.CallOption;
import org.apache.arrow.flight.CallOptions;
import org.apache.arrow.flight.FlightClient;
import org.apache.arrow.flight.FlightDescriptor;
import org.apache.arrow.flight.FlightGrpcUtils;
import org.apache.arrow.flight.FlightInfo;
import org.apache.arrow.flight.FlightStream;
import org.apache.arrow.flight.Result;
import org.apache.arrow.flight.Ticket;
import org.apache.arrow.memory.BufferAllocator;
import org.apache.arrow.vector.types.pojo.Schema;

/**
 * One connection to a server: the calls that the connector makes, each with a deadline where it moves no data, each with an error that
 * says what was asked. Not shared between tasks; closing it gives all its memory back.
 */
final class Connection implements AutoCloseable {
  /** How long a call that moves no data may take. */
  private static final int CALL_SECONDS = 60;

  /** A publish may have to encode, and at level {@code persisted} it waits for the store. */
  private static final int PUBLISH_SECONDS = 600;

  /** Bytes that may be under way to us; a link with some delay needs more than HTTP/2's first offer. */
  private static final int WINDOW_BYTES = 16 << 20;

  private final Server server;
  private final ManagedChannel channel;
  private final BufferAllocator allocator;
  private final FlightClient client;

  private Connection(Server server, ManagedChannel channel, BufferAllocator allocator) {
    this.server = server;
    this.channel = channel;
    this.allocator = allocator;
    this.client = FlightGrpcUtils.createFlightClientWithSharedChannel(allocator, channel);
  }

  /** Connects when the first call is made. */
  static Connection open(Server server) throws IOException {
    NettyChannelBuilder builder =
        NettyChannelBuilder.forAddress(server.host(), server.port())
            .maxInboundMessageSize(Integer.MAX_VALUE)
            .flowControlWindow(WINDOW_BYTES)
            .keepAliveTime(30, TimeUnit.SECONDS)
            .intercept(new StatusKeeper(server.token()));
    if (!server.tls()) {
      builder.usePlaintext();
    } else if (server.caFile() != null) {
      builder.sslContext(GrpcSslContexts.forClient().trustManager(new File(server.caFile())).build());
    }
    return new Connection(server, builder.build(), Memory.child(server.addr()));
  }

  /** The memory that batches of this connection are made in. */
  BufferAllocator allocator() {
    return allocator;
  }

  FlightClient flight() {
    return client;
  }

  /** GetFlightInfo. */
  FlightInfo info(Command command) throws ForebayException {
    return info(command.descriptor(), command.toString());
  }

  /** GetFlightInfo, with {@code what} to name it by. */
  FlightInfo info(FlightDescriptor descriptor, String what) throws ForebayException {
    return call("reading " + what, () -> client.getInfo(descriptor, deadline(CALL_SECONDS)));
  }

  /** The first PollFlightInfo of a read: of a live session only parts that have ended, in an order that stays. */
  FlightInfo poll(Command command) throws ForebayException {
    return call("polling " + command, () -> client.pollInfo(command.descriptor(), deadline(CALL_SECONDS)).getFlightInfo());
  }

  /** GetSchema. No deadline: with {@code wait} the server may take its time. */
  Schema schema(Command command) throws ForebayException {
    return call("asking for the schema of " + command, () -> client.getSchema(command.descriptor()).getSchema());
  }

  /** DoGet. */
  FlightStream get(byte[] ticket, CallOption... options) {
    return client.getStream(new Ticket(ticket), options);
  }

  /** DoAction. */
  List<JsonNode> act(String name, Command body) throws ForebayException {
    int seconds = name.equals("publish") ? PUBLISH_SECONDS : CALL_SECONDS;
    return call(
        name,
        () -> {
          List<JsonNode> results = new ArrayList<>();
          var answers = client.doAction(new Action(name, body.bytes()), deadline(seconds));
          while (answers.hasNext()) {
            Result answer = answers.next();
            results.add(Command.JSON.readTree(answer.getBody()));
          }
          return results;
        });
  }

  /** An action that answers one object. */
  JsonNode actOne(String name, Command body) throws ForebayException {
    List<JsonNode> results = act(name, body);
    if (results.size() != 1) {
      throw new ForebayException("INTERNAL", name + " at " + server.addr() + " answered " + results.size() + " results instead of one");
    }
    return results.get(0);
  }

  private interface Call<T> {
    T run() throws IOException;
  }

  private <T> T call(String what, Call<T> call) throws ForebayException {
    try {
      return call.run();
    } catch (IOException | RuntimeException e) {
      throw ForebayException.of(what + " at " + server.addr(), e);
    }
  }

  private static CallOption deadline(int seconds) {
    return CallOptions.timeout(seconds, TimeUnit.SECONDS);
  }

  @Override
  public void close() {
    channel.shutdownNow();
    try {
      // Before the memory: a message on its way holds some.
      channel.awaitTermination(10, TimeUnit.SECONDS);
      client.close();
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
    }
    allocator.close();
  }
}
