package io.forebay.spark;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.ObjectInputStream;
import java.io.ObjectOutputStream;
import java.util.HashMap;
import java.util.Map;
import org.apache.spark.sql.util.CaseInsensitiveStringMap;
import org.junit.jupiter.api.Test;

class OptionsTest {
  private static Options parse(Map<String, String> environment, String... pairs) {
    Map<String, String> given = new HashMap<>(Map.of("path", "/a"));
    for (int k = 0; k < pairs.length; k += 2) {
      given.put(pairs[k], pairs[k + 1]);
    }
    return Options.parse(new CaseInsensitiveStringMap(given), environment);
  }

  @Test
  void whatIsNotGivenComesFromTheEnvironmentOrHasADefault() {
    assertEquals("grpc://127.0.0.1:47470", parse(Map.of()).server().addr());
    assertNull(parse(Map.of()).server().token());
    Options options = parse(Map.of("FOREBAY_ADDR", "grpc+tls://host:1", "FOREBAY_TOKEN", "t"));
    assertEquals("grpc+tls://host:1", options.server().addr());
    assertEquals("t", options.server().token().reveal());
    assertEquals("u", parse(Map.of("FOREBAY_TOKEN", "t"), "token", "u").server().token().reveal());
  }

  @Test
  void sessionKeysGoAsTheyAre() {
    Options options = parse(Map.of(), "ACK", "local", "sessiontimeout", "5min", "format", "Parquet", "compression", "zstd");
    assertEquals(Map.of("ack", "local", "timeout", "5min", "format", "parquet", "compression", "zstd"), options.session());
  }

  @Test
  void wrongOnesAreRefusedByName() {
    for (String[] wrong :
        new String[][] {
          {"addr", "http://h:1"}, {"addr", "grpc://h"}, {"addr", "grpc://h:1/path"}, {"addr", "grpc://u:p@h:1"},
          {"mode", "maybe"}, {"format", "csv"}, {"compression", "rar"}, {"version", "x"}, {"version", "-1"},
          {"batchRows", "0"}, {"onOverwrite", "perhaps"}, {"path", "relative"}, {"path", ""},
        }) {
      String text = assertThrows(IllegalArgumentException.class, () -> parse(Map.of(), wrong)).getMessage();
      assertTrue(text.contains(wrong[0]), text);
    }
  }

  @Test
  void aTokenTravelsAndIsNotShown() throws Exception {
    Options options = parse(Map.of(), "token", "tok-123");
    ByteArrayOutputStream bytes = new ByteArrayOutputStream();
    try (ObjectOutputStream out = new ObjectOutputStream(bytes)) {
      out.writeObject(options);
    }
    try (ObjectInputStream in = new ObjectInputStream(new ByteArrayInputStream(bytes.toByteArray()))) {
      Options there = (Options) in.readObject();
      assertEquals("tok-123", there.server().token().reveal());
      assertFalse(there.toString().contains("tok-123"), there.toString());
      assertEquals(options, there);
    }
  }
}
