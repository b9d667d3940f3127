package io.forebay.spark;

import java.io.IOException;
import java.io.InterruptedIOException;
import java.util.concurrent.locks.LockSupport;
import org.apache.arrow.flight.AsyncPutListener;
import org.apache.arrow.flight.CallStatus;
import org.apache.arrow.flight.FlightClient.ClientStreamListener;
import org.apache.arrow.flight.FlightDescriptor;
import org.apache.arrow.flight.FlightRuntimeException;
import org.apache.arrow.vector.VectorSchemaRoot;

/** One DoPut call. It waits for the connection before each batch, so that no more than one is held beside the one that is made. */
final class Put {
  private static final long LOOK_NANOS = 100_000;

  private final AsyncPutListener answers = new AsyncPutListener();
  private final String what;
  private final ClientStreamListener call;
  private boolean completed;
  private boolean ended;

  private Put(Connection connection, FlightDescriptor descriptor, String what) {
    this.what = what;
    this.call = connection.flight().startPut(descriptor, answers);
  }

  /** Begins the call; batches are what {@code root} holds at each {@link #send}. */
  static Put begin(Connection connection, FlightDescriptor descriptor, VectorSchemaRoot root, String what) throws IOException {
    try {
      Put put = new Put(connection, descriptor, what);
      put.call.start(root);
      // Each batch has memory of its own, which the connection frees.
      put.call.setUseZeroCopy(true);
      return put;
    } catch (RuntimeException e) {
      throw ForebayException.of(what, e);
    }
  }

  void send() throws IOException {
    // Flight itself would spin.
    while (!call.isReady() && !answers.isCancelled()) {
      if (Thread.interrupted()) {
        throw new InterruptedIOException(what + " was interrupted");
      }
      LockSupport.parkNanos(LOOK_NANOS);
    }
    if (answers.isCancelled()) {
      // The server has ended the call; its status says why.
      result();
      throw new ForebayException("INTERNAL", what + ": the server ended the call before the last batch");
    }
    try {
      call.putNext();
    } catch (RuntimeException e) {
      throw ForebayException.of(what, e);
    }
  }

  /** Says that all has been sent. What comes of it {@link #end} tells. */
  void complete() {
    if (!completed) {
      completed = true;
      call.completed();
    }
  }

  /** Ends the call well: OK from the server means that it holds everything at its level. */
  void end() throws IOException {
    complete();
    result();
    ended = true;
  }

  /** Waits for the end of the call and says what was wrong with it. */
  void result() throws IOException {
    try {
      answers.getResult();
    } catch (FlightRuntimeException e) {
      ended = true;
      throw ForebayException.of(what, e);
    }
  }

  /** Whether the server has ended the call. */
  boolean isOver() {
    return answers.isCancelled();
  }

  /** Takes everything back, unless the call has ended. */
  void cancel() {
    if (!ended) {
      ended = true;
      call.error(CallStatus.CANCELLED.withDescription("the writer gave up").toRuntimeException());
    }
  }
}
