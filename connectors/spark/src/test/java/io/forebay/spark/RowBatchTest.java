package io.forebay.spark;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.util.List;
import org.apache.arrow.memory.BufferAllocator;
import org.apache.arrow.vector.dictionary.DictionaryProvider.MapDictionaryProvider;
import org.apache.arrow.vector.types.pojo.ArrowType;
import org.apache.arrow.vector.types.pojo.Field;
import org.apache.arrow.vector.types.pojo.Schema;
import org.apache.spark.sql.catalyst.InternalRow;
import org.apache.spark.sql.catalyst.expressions.GenericInternalRow;
import org.apache.spark.sql.catalyst.util.GenericArrayData;
import org.apache.spark.sql.types.StructType;
import org.apache.spark.sql.vectorized.ColumnarBatch;
import org.apache.spark.unsafe.types.UTF8String;
import org.junit.jupiter.api.Test;

class RowBatchTest {
  private static final StructType TYPE = StructType.fromDDL("id bigint, name string, list array<int>, inner struct<x: int, y: string>");

  private static InternalRow row(Object... values) {
    return new GenericInternalRow(values);
  }

  private static UTF8String text(String text) {
    return UTF8String.fromString(text);
  }

  @Test
  void rowsComeBackFromTheColumns() {
    try (BufferAllocator memory = Memory.child("test");
        RowBatch batch = new RowBatch(memory, ArrowTypes.toArrow(TYPE), TYPE, 100)) {
      // Twice, to see that nothing of a batch is left in the next.
      for (int round = 0; round < 2; round++) {
        batch.add(row(1L, text("ü"), new GenericArrayData(new Object[] {1, null, 3}), row(7, text("z"))));
        batch.add(row(null, null, null, null));
        batch.add(row(3L, text(""), new GenericArrayData(new Object[] {}), row(null, text("y"))));
        ColumnarBatch columns = ArrowColumns.batch(batch.finish(), new MapDictionaryProvider());
        assertEquals(3, columns.numRows());
        assertEquals(1L, columns.getRow(0).getLong(0));
        assertEquals(text("ü"), columns.getRow(0).getUTF8String(1).copy());
        assertEquals(3, columns.getRow(0).getArray(2).getInt(2));
        assertTrue(columns.getRow(0).getArray(2).isNullAt(1));
        assertEquals(7, columns.getRow(0).getStruct(3, 2).getInt(0));
        for (int k = 0; k < 4; k++) {
          assertTrue(columns.getRow(1).isNullAt(k));
        }
        assertEquals(0, columns.getRow(2).getArray(2).numElements());
        assertTrue(columns.getRow(2).getStruct(3, 2).isNullAt(0));
        assertEquals(text("y"), columns.getRow(2).getStruct(3, 2).getUTF8String(1));
        batch.clear();
      }
    }
  }

  @Test
  void aBatchIsFullByRowsAndByBytes() {
    StructType type = StructType.fromDDL("id bigint");
    try (BufferAllocator memory = Memory.child("test");
        RowBatch batch = new RowBatch(memory, ArrowTypes.toArrow(type), type, 3)) {
      batch.add(row(1L));
      batch.add(row(1L));
      assertEquals(false, batch.isFull());
      batch.add(row(1L));
      assertTrue(batch.isFull());
    }
  }

  @Test
  void aNullIsRefusedWhereNoneCanBe() {
    Schema strict = new Schema(List.of(Field.notNullable("id", new ArrowType.Int(64, true))));
    StructType type = StructType.fromDDL("id bigint");
    try (BufferAllocator memory = Memory.child("test");
        RowBatch batch = new RowBatch(memory, strict, type, 3)) {
      batch.add(row(1L));
      assertTrue(assertThrows(IllegalArgumentException.class, () -> batch.add(row((Object) null))).getMessage().contains("\"id\""));
    }
  }

  @Test
  void anotherTypeIsRefusedByTheColumnsName() {
    StructType type = StructType.fromDDL("id string");
    Schema numbers = new Schema(List.of(Field.nullable("id", new ArrowType.Int(64, true))));
    try (BufferAllocator memory = Memory.child("test")) {
      String text = assertThrows(IllegalArgumentException.class, () -> new RowBatch(memory, numbers, type, 3)).getMessage();
      assertTrue(text.contains("column \"id\" is of type string"), text);
    }
  }

  @Test
  void everyTypeThatIsWrittenIsReadAsItself() {
    StructType types =
        StructType.fromDDL(
            "a boolean, b tinyint, c smallint, d int, e bigint, f float, g double, h decimal(38,18), i string, j binary, k date, l timestamp,"
                + " m timestamp_ntz, n array<array<string>>, o map<string, struct<x: int>>, p struct<y: map<int, date>>");
    assertEquals(types, ArrowTypes.toSpark(ArrowTypes.toArrow(types)));
  }
}
