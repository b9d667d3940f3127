package io.forebay.spark;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;

import org.junit.jupiter.api.Test;

class VersionOffsetTest {
  @Test
  void itReadsAndWrites() {
    String json = new VersionOffset(3, 7, 20, 2).json();
    assertEquals("{\"version\":3,\"parts\":7,\"batches\":20,\"base\":2}", json);
    assertEquals(new VersionOffset(3, 7, 20, 2), VersionOffset.parse(json));
  }

  @Test
  void afterAnOverwriteItBeginsAtTheFirstPart() {
    VersionOffset start = new VersionOffset(3, 7, 20, 0);
    assertEquals(7, start.firstPart(new VersionOffset(5, 9, 30, 0)));
    assertEquals(0, start.firstPart(new VersionOffset(5, 9, 30, 5)));
  }

  @Test
  void withinASessionItSaysWhatOfItWasTaken() {
    VersionOffset live = new VersionOffset(3, 7, 20, 0).with("abcdefghijklmnop", 2);
    assertEquals("{\"version\":3,\"parts\":7,\"batches\":20,\"base\":0,\"session\":\"abcdefghijklmnop\",\"taken\":2}", live.json());
    assertEquals(live, VersionOffset.parse(live.json()));
    // Another session was published before it: one part that was not read lies between.
    VersionOffset end = new VersionOffset(5, 10, 30, 0);
    assertEquals(7, live.firstPart(end));
    assertEquals(8, live.lastPart(end));
  }

  @Test
  void anotherSourcesIsRefused() {
    for (String json : new String[] {"{}", "7", "[1]", "{\"version\":-1,\"parts\":0,\"batches\":0,\"base\":0}", "x"}) {
      assertThrows(IllegalArgumentException.class, () -> VersionOffset.parse(json), json);
    }
  }
}
