package io.forebay.spark;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;

import java.time.LocalDate;
import java.time.ZoneId;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import org.apache.spark.sql.types.DataType;
import org.apache.spark.sql.types.DataTypes;
import org.apache.spark.sql.types.Decimal;
import org.apache.spark.unsafe.types.UTF8String;
import org.junit.jupiter.api.Test;

/** What Spark itself takes the same texts for is asked by tests/spark/test_folders.py. */
class FolderTypesTest {
  private static final FolderTypes TYPES = new FolderTypes(DataTypes.TimestampType, ZoneId.of("America/New_York"));

  private static String of(String... texts) {
    return TYPES.of(Arrays.asList(texts)).simpleString();
  }

  @Test
  void aTextHasTheNarrowestType() {
    Map<String, List<String>> texts =
        Map.of(
            "int", List.of("1", "01", "+1", "-2147483648", "20241004"),
            "bigint", List.of("2147483648", "-9223372036854775808"),
            "decimal(19,0)", List.of("9223372036854775808"),
            "decimal(6,0)", List.of("1E5"),
            "double", List.of("1.0", ".5", "1e-3", "NaN", "-Infinity", "1d", " 1", "1" + "0".repeat(38), "1E999999999"),
            "date", List.of("2024-10-04", "+10000-01-01", "0000-01-01"),
            "timestamp", List.of("2024-10-04 12:30:00", "2024-10-04 12:30:00.5"),
            "string", List.of("", "x", "true", "2024-10", "2024-02-30", "10000-01-01", "2024-10-04 24:00:00", "2024-10-04 12:30:00.55", "12:30:00", "1L"));
    texts.forEach((type, each) -> each.forEach(text -> assertEquals(type, of(text), text)));
  }

  @Test
  void aColumnHasATypeThatHoldsEveryText() {
    assertEquals("int", of("1", null, "02"));
    assertEquals("bigint", of("1", "2147483648"));
    assertEquals("decimal(20,0)", of("9223372036854775808", "2147483648"));
    assertEquals("double", of("1", "1.5"));
    assertEquals("string", of("2147483648", "1.5"), "a double does not hold a long");
    assertEquals("string", of("9223372036854775808", "1.5"));
    assertEquals("timestamp", of("2024-10-04", "2024-10-04 12:30:00"));
    assertEquals("string", of("2024-10-04", "7"));
    assertEquals("string", of("1", "x"));
    assertEquals("string", of((String) null));
    assertEquals("string", of());
  }

  @Test
  void textsBecomeValuesOrAreRefused() {
    assertEquals(1, TYPES.value("01", DataTypes.IntegerType));
    assertEquals((int) LocalDate.of(2024, 10, 4).toEpochDay(), TYPES.value("2024-10-04", DataTypes.DateType));
    assertEquals(1728059400000000L, TYPES.value("2024-10-04 12:30:00", DataTypes.TimestampType));
    assertEquals(1728045000000000L, TYPES.value("2024-10-04 12:30:00", DataTypes.TimestampNTZType));
    assertEquals(Decimal.apply("1.50"), TYPES.value("1.5", DataTypes.createDecimalType(9, 2)));
    assertEquals(UTF8String.fromString("x"), TYPES.value("x", DataTypes.StringType));
    assertEquals(true, TYPES.value("True", DataTypes.BooleanType));
    Map<DataType, String> wrong =
        Map.of(
            DataTypes.IntegerType, "x",
            DataTypes.ByteType, "128",
            DataTypes.BooleanType, "1",
            DataTypes.DateType, "2024-02-30",
            DataTypes.TimestampType, "noon",
            DataTypes.createDecimalType(3, 2), "10",
            DataTypes.createDecimalType(3, 1), "1.55");
    wrong.forEach((type, text) -> assertThrows(IllegalArgumentException.class, () -> TYPES.value(text, type), type + " " + text));
    assertFalse(FolderTypes.isReadAs(DataTypes.BinaryType));
  }
}
