package io.forebay.spark;

import org.apache.arrow.memory.BufferAllocator;
import org.apache.arrow.memory.RootAllocator;

/** The Arrow memory of this process. Every connection takes a child of it, whose end tells whether something was not given back. */
final class Memory {
  private static final BufferAllocator ROOT = new RootAllocator();

  private Memory() {}

  static BufferAllocator child(String name) {
    return ROOT.newChildAllocator(name, 0, Long.MAX_VALUE);
  }
}
