package io.forebay.spark;

import io.grpc.Status;
import java.io.IOException;
import java.util.List;
import org.apache.arrow.vector.types.pojo.Field;
import org.apache.arrow.vector.types.pojo.Schema;
import org.apache.spark.sql.types.StructType;

/**
 * The Arrow schema that rows are written with. A dataset that is appended to keeps its own, whoever wrote it (large strings, columns
 * without nulls, lists of a fixed size), where its types hold what Spark's do.
 */
final class WriteSchema {
  private WriteSchema() {}

  static Schema of(Connection server, String path, String mode, StructType rows) throws IOException {
    Schema ours = ArrowTypes.toArrow(rows);
    Schema theirs = mode.equals("append") ? there(server, path) : null;
    return theirs != null && sameColumns(ours, theirs) ? theirs : ours;
  }

  /**
   * The schema for folders that are read together with others, which takes one for all of them. The columns {@code folders} are those
   * that readers get from the names of folders.
   */
  static Schema joining(Connection server, String path, StructType rows, List<String> folders) throws IOException {
    Schema ours = ArrowTypes.toArrow(rows);
    Schema theirs = there(server, path);
    if (theirs == null) {
      return ours;
    }
    theirs = new Schema(theirs.getFields().stream().filter(field -> !folders.contains(field.getName())).toList());
    if (!sameColumns(ours, theirs)) {
      throw new ForebayException(
          Status.Code.FAILED_PRECONDITION.name(),
          path + ": the folders that are there have the columns " + names(theirs) + ", and those to be written " + names(ours)
              + "; all folders of a table have the same");
    }
    return theirs;
  }

  /** The schema of what is there; {@code null} where nothing says one, and then the server tells what is wrong with the write itself. */
  private static Schema there(Connection server, String path) throws IOException {
    try {
      return server.schema(Command.dataset(path));
    } catch (ForebayException e) {
      if (e.is(Status.Code.NOT_FOUND) || e.is(Status.Code.FAILED_PRECONDITION)) {
        return null;
      }
      throw e;
    }
  }

  private static List<String> names(Schema schema) {
    return schema.getFields().stream().map(Field::getName).toList();
  }

  /** Whether the columns have the same names, in order, and none is encoded by a dictionary. Types are looked at by whoever fills them. */
  private static boolean sameColumns(Schema ours, Schema theirs) {
    return names(ours).equals(names(theirs))
        && theirs.getFields().stream().noneMatch(WriteSchema::isEncoded);
  }

  private static boolean isEncoded(Field field) {
    return field.getDictionary() != null || field.getChildren().stream().anyMatch(WriteSchema::isEncoded);
  }
}
