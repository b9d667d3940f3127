package io.forebay.spark;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.util.Arrays;
import java.util.List;
import org.apache.spark.unsafe.types.UTF8String;
import org.junit.jupiter.api.Test;

class FoldersTest {
  private static String path(List<String> columns, String... values) {
    return Folders.path("/t/", columns, Arrays.stream(values).map(UTF8String::fromString).toList());
  }

  @Test
  void valuesAreEscapedAsHiveDoesAndThenForTheWire() {
    assertEquals("/t/day=2024-10-04", path(List.of("day"), "2024-10-04"));
    assertEquals("/t/a=1/b=x", path(List.of("a", "b"), "1", "x"));
    assertEquals("a%2Fb%3Dc%25d%07 ä", Folders.escape("a/b=c%d\u0007 ä"));
    assertEquals("/t/k=a%252Fb", path(List.of("k"), "a/b"));
    assertEquals("/t/k=%2525", path(List.of("k"), "%"));
  }

  @Test
  void aNullAndATextOfNothingAreHivesNull() {
    String expected = "/t/k=__HIVE_DEFAULT_PARTITION__";
    assertEquals(expected, Folders.path("/t", List.of("k"), Arrays.asList((UTF8String) null)));
    assertEquals(expected, path(List.of("k"), ""));
  }

  @Test
  void aPublishThatNoActionCanHoldSaysWhatToDo() {
    FoldersBatchWrite.checkSize(Command.empty().with("session", "s"), "/t");
    Command publish = Command.empty().with("session", "s".repeat(WriteSession.BODY_BYTES_MAX));
    String text = assertThrows(IllegalArgumentException.class, () -> FoldersBatchWrite.checkSize(publish, "/t")).getMessage();
    assertTrue(text.startsWith("/t: ") && text.contains("distribution=rebalance"), text);
  }

  @Test
  void namesTravelAsJson() {
    List<String> names = List.of("a", "b \"c\"", "é");
    assertEquals(names, Folders.names(Folders.json(names)));
    assertEquals(List.of(), Folders.names(null));
    assertThrows(IllegalArgumentException.class, () -> Folders.names("["));
  }

  @Test
  void attemptsAreNumberedInTheOrderOfTasks() {
    assertTrue(FolderTarget.number(0, 77) < FolderTarget.number(1, 3));
    assertTrue(FolderTarget.number((1 << 21) - 1, (1L << 32) - 1) < 1L << 53);
    assertThrows(IllegalArgumentException.class, () -> FolderTarget.number(1 << 21, 0));
    assertThrows(IllegalArgumentException.class, () -> FolderTarget.number(0, 1L << 32));
  }
}
