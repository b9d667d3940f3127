package io.forebay.spark;

import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.nio.charset.StandardCharsets;
import java.util.List;
import org.apache.arrow.flight.FlightDescriptor;

/** Builds the JSON objects of descriptors and actions. Keys that are {@code null} are left out, as the server refuses unknown ones. */
final class Command {
  static final ObjectMapper JSON = new ObjectMapper();

  private final ObjectNode keys = JSON.createObjectNode();

  /** An empty object. */
  static Command empty() {
    return new Command();
  }

  /** A dataset's. */
  static Command dataset(String path) {
    return new Command().with("path", path).with("kind", "dataset");
  }

  Command with(String key, String value) {
    if (value != null) {
      keys.put(key, value);
    }
    return this;
  }

  Command with(String key, Long value) {
    if (value != null) {
      keys.put(key, value);
    }
    return this;
  }

  Command with(String key, boolean value) {
    if (value) {
      keys.put(key, true);
    }
    return this;
  }

  Command with(String key, List<String> values) {
    if (values != null) {
      values.forEach(keys.putArray(key)::add);
    }
    return this;
  }

  Command with(String key, Command value) {
    keys.set(key, value.keys);
    return this;
  }

  Command withAll(String key, List<Command> values) {
    values.forEach(value -> keys.withArray(key).add(value.keys));
    return this;
  }

  byte[] bytes() {
    try {
      return JSON.writeValueAsBytes(keys);
    } catch (JsonProcessingException e) {
      throw new IllegalStateException("plain data has a JSON form", e);
    }
  }

  FlightDescriptor descriptor() {
    return FlightDescriptor.command(bytes());
  }

  @Override
  public String toString() {
    return new String(bytes(), StandardCharsets.UTF_8);
  }
}
