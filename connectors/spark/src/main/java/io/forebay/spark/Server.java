package io.forebay.spark;

import java.io.Serializable;
import java.net.URI;
import java.net.URISyntaxException;
import java.util.Locale;

/**
 * Where a server is and how one enters. Serializable, so that executors find it too.
 *
 * @param host its name or address
 * @param port its Flight port
 * @param tls whether TLS is spoken
 * @param caFile certificates to trust (PEM), by a path that is good on every node; {@code null}: those that Java trusts
 * @param token the bearer token, or {@code null}
 */
record Server(String host, int port, boolean tls, String caFile, Secret token) implements Serializable {
  /** Where a server listens unless told otherwise. */
  static final String DEFAULT_ADDR = "grpc://127.0.0.1:47470";

  /** Reads {@code grpc://host:port} or {@code grpc+tls://host:port}. */
  static Server parse(String addr, String caFile, Secret token) {
    URI uri;
    try {
      uri = new URI(addr.contains("://") ? addr : "grpc://" + addr);
    } catch (URISyntaxException e) {
      throw refuse(addr, e.getReason());
    }
    boolean tls =
        switch (String.valueOf(uri.getScheme()).toLowerCase(Locale.ROOT)) {
          case "grpc", "grpc+tcp" -> false;
          case "grpc+tls", "grpcs" -> true;
          default -> throw refuse(addr, "its scheme is neither grpc nor grpc+tls");
        };
    if (uri.getUserInfo() != null) {
      throw new IllegalArgumentException("option addr holds credentials; give a token by option token or FOREBAY_TOKEN");
    }
    if (uri.getHost() == null || uri.getPort() <= 0) {
      throw refuse(addr, "it names no host and port");
    }
    if (!uri.getRawPath().isEmpty() && !uri.getRawPath().equals("/")) {
      throw refuse(addr, "it has a path; the path is what save() and load() take");
    }
    return new Server(uri.getHost(), uri.getPort(), tls, caFile, token);
  }

  private static IllegalArgumentException refuse(String addr, String why) {
    return new IllegalArgumentException("option addr is \"" + addr + "\": " + why + "; write it like " + DEFAULT_ADDR);
  }

  /** Another address of the same cluster, entered the same way. */
  Server at(URI location) {
    boolean secure = "grpc+tls".equals(location.getScheme());
    return new Server(location.getHost(), location.getPort(), secure, caFile, token);
  }

  /** As users write it. */
  String addr() {
    return (tls ? "grpc+tls://" : "grpc://") + host + ":" + port;
  }
}
