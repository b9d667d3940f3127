package io.forebay.spark;

import java.io.Serializable;
import java.util.Objects;

/**
 * A token that travels to executors and shows itself to nobody else: its text is the same whatever it holds, so that it may stand in
 * plans, logs and messages.
 */
final class Secret implements Serializable {
  private static final long serialVersionUID = 1;
  private static final String SHOWN = "*********(redacted)";

  private final String value;

  Secret(String value) {
    this.value = Objects.requireNonNull(value);
  }

  /** What it holds. For the header of a call and for nothing else. */
  String reveal() {
    return value;
  }

  @Override
  public String toString() {
    return SHOWN;
  }

  @Override
  public boolean equals(Object other) {
    return other instanceof Secret secret && value.equals(secret.value);
  }

  @Override
  public int hashCode() {
    return Secret.class.hashCode();
  }
}
