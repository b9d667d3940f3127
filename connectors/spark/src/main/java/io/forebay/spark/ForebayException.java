package io.forebay.spark;

import io.grpc.Status;
import java.io.IOException;
import org.apache.arrow.flight.ErrorFlightMetadata;
import org.apache.arrow.flight.FlightRuntimeException;

/**
 * What a server refused, or that it could not be asked: where, the gRPC status by its name, and the server's own text. It holds no object
 * of the connection, so that it travels from executors to the driver.
 */
public final class ForebayException extends IOException {
  private static final long serialVersionUID = 1;

  /** The gRPC status, which says what a caller can do. */
  private final String code;

  ForebayException(String code, String text) {
    super(code + ": " + text);
    this.code = code;
  }

  /** What a call answered that was to do {@code what}. */
  static ForebayException of(String what, Throwable error) {
    if (error instanceof ForebayException known) {
      return known;
    }
    if (error instanceof FlightRuntimeException flight) {
      String text = flight.status().description();
      return new ForebayException(code(flight), what + ": " + (text == null ? String.valueOf(flight.getMessage()) : text));
    }
    return new ForebayException(Status.Code.UNKNOWN.name(), what + ": " + error);
  }

  private static String code(FlightRuntimeException error) {
    ErrorFlightMetadata trailers = error.status().metadata();
    if (trailers != null && trailers.containsKey(StatusKeeper.TRAILER)) {
      return trailers.get(StatusKeeper.TRAILER);
    }
    return switch (error.status().code()) {
      case TIMED_OUT -> "DEADLINE_EXCEEDED";
      case UNAUTHORIZED -> "PERMISSION_DENIED";
      default -> error.status().code().name();
    };
  }

  /** The gRPC status by its name, for example {@code NOT_FOUND}. */
  public String code() {
    return code;
  }

  boolean is(Status.Code other) {
    return code.equals(other.name());
  }

  /** Whether the same call may fare better in a moment. */
  boolean isPassing() {
    return is(Status.Code.UNAVAILABLE) || is(Status.Code.DEADLINE_EXCEEDED);
  }
}
