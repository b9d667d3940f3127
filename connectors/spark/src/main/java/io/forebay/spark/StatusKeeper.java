package io.forebay.spark;

import io.grpc.CallOptions;
import io.grpc.Channel;
import io.grpc.ClientCall;
import io.grpc.ClientInterceptor;
import io.grpc.ForwardingClientCall.SimpleForwardingClientCall;
import io.grpc.ForwardingClientCallListener.SimpleForwardingClientCallListener;
import io.grpc.Metadata;
import io.grpc.MethodDescriptor;
import io.grpc.Status;

/**
 * Sends the token with every call, and keeps the status that a call ended with: Flight's own classes know no ABORTED and no
 * FAILED_PRECONDITION, which mean different things here, but they hand trailers on.
 */
final class StatusKeeper implements ClientInterceptor {
  /** The trailer that holds the name of the status. */
  static final String TRAILER = "forebay-client-status";

  private static final Metadata.Key<String> STATUS = Metadata.Key.of(TRAILER, Metadata.ASCII_STRING_MARSHALLER);
  private static final Metadata.Key<String> AUTHORIZATION = Metadata.Key.of("authorization", Metadata.ASCII_STRING_MARSHALLER);

  private final Secret token;

  StatusKeeper(Secret token) {
    this.token = token;
  }

  @Override
  public <Q, A> ClientCall<Q, A> interceptCall(MethodDescriptor<Q, A> method, CallOptions options, Channel next) {
    return new SimpleForwardingClientCall<Q, A>(next.newCall(method, options)) {
      @Override
      public void start(Listener<A> listener, Metadata headers) {
        if (token != null) {
          headers.put(AUTHORIZATION, "Bearer " + token.reveal());
        }
        super.start(keeping(listener), headers);
      }
    };
  }

  private static <A> ClientCall.Listener<A> keeping(ClientCall.Listener<A> listener) {
    return new SimpleForwardingClientCallListener<A>(listener) {
      @Override
      public void onClose(Status status, Metadata trailers) {
        if (!status.isOk()) {
          trailers.put(STATUS, status.getCode().name());
        }
        super.onClose(status, trailers);
      }
    };
  }
}
