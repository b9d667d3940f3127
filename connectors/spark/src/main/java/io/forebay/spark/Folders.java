package io.forebay.spark;

import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.JsonNode;
import io.grpc.Status;
import java.io.IOException;
import java.util.ArrayList;
import java.util.List;
import org.apache.spark.unsafe.types.UTF8String;

/**
 * Folders {@code k=v} as Hive and Spark name them: a value is its text, with the bytes that file systems take amiss as {@code %XX}, and a
 * null, or a text without letters, is {@code __HIVE_DEFAULT_PARTITION__}. Paths are as they go over the wire, where a {@code %} is
 * {@code %25}.
 */
final class Folders {
  /** Spark's and Hive's name of a null. */
  static final String NULL = "__HIVE_DEFAULT_PARTITION__";

  /** What Spark and Hive escape, beside control characters. */
  private static final String ESCAPED = "\"#%'*/:=?\\\u007F{[]^";

  /** Entries of a directory that one call asks for. */
  private static final long PAGE = 1000;

  private Folders() {}

  /** The names that Spark hands over as a list of JSON. */
  static List<String> names(String json) {
    if (json == null) {
      return List.of();
    }
    try {
      List<String> names = new ArrayList<>();
      Command.JSON.readTree(json).forEach(name -> names.add(name.asText()));
      return List.copyOf(names);
    } catch (JsonProcessingException e) {
      throw new IllegalArgumentException("columns of folders: " + json + " is no list of names", e);
    }
  }

  /** The list that {@link #names} reads. */
  static String json(List<String> names) {
    return Command.JSON.valueToTree(names).toString();
  }

  /** The path of a folder below {@code root}, one level for each column. */
  static String path(String root, List<String> columns, List<UTF8String> values) {
    StringBuilder path = new StringBuilder(root.endsWith("/") ? root.substring(0, root.length() - 1) : root);
    for (int k = 0; k < columns.size(); k++) {
      UTF8String value = values.get(k);
      String text = value == null || value.numBytes() == 0 ? NULL : escape(value.toString());
      path.append('/').append(wire(escape(columns.get(k)) + "=" + text));
    }
    return path.toString();
  }

  static String escape(String text) {
    StringBuilder out = new StringBuilder(text.length());
    for (char c : text.toCharArray()) {
      if (c < ' ' || ESCAPED.indexOf(c) >= 0) {
        out.append(String.format("%%%02X", (int) c));
      } else {
        out.append(c);
      }
    }
    return out.toString();
  }

  private static String wire(String name) {
    return name.replace("%", "%25");
  }

  /**
   * Refuses a directory whose readers could not make one table of what is there and of folders of these columns. Answers whether anything
   * is there at all.
   */
  static boolean check(Connection server, String root, List<String> columns) throws IOException {
    JsonNode entry;
    try {
      entry = server.actOne("stat", Command.empty().with("path", root));
    } catch (ForebayException e) {
      if (e.is(Status.Code.NOT_FOUND)) {
        return false;
      }
      throw e;
    }
    if (!entry.path("kind").asText().equals("dir")) {
      throw refuse(root + ": a file is there");
    }
    if (entry.hasNonNull("version")) {
      throw refuse(root + " is a dataset itself, whose readers would not look into folders below it; write to another path, or delete it first");
    }
    level(server, root, columns.get(0), PAGE);
    return true;
  }

  /** All folders below {@code root}, one level for each column, in the order of their paths. */
  static List<String> all(Connection server, String root, List<String> columns, int most) throws IOException {
    List<String> folders = List.of(root);
    for (String column : columns) {
      List<String> below = new ArrayList<>();
      for (String folder : folders) {
        below.addAll(level(server, folder, column, most + 1L));
        if (below.size() > most) {
          throw refuse(
              root + " has more than " + most + " folders, and so many are overwritten in one step; delete the table first, or say"
                  + " partitionOverwriteMode dynamic");
        }
      }
      folders = below;
    }
    return folders;
  }

  /** The folders of one column in a directory, {@code most} of them or a few more. */
  private static List<String> level(Connection server, String directory, String column, long most) throws IOException {
    String key = escape(column) + "=";
    List<String> folders = new ArrayList<>();
    list(
        server,
        directory,
        entry -> {
          String path = entry.path("path").asText();
          String name = path.substring(path.lastIndexOf('/') + 1).replace("%25", "%");
          if (name.startsWith("_") || name.startsWith(".")) {
            return true;
          }
          if (!entry.path("kind").asText().equals("dir")) {
            throw refuse(path + " lies beside the folders of \"" + column + "\", and readers could not say what it belongs to; move it away");
          }
          if (name.startsWith(key)) {
            folders.add(path);
          } else if (name.indexOf('=') > 0) {
            throw refuse(path + " lies where folders of \"" + column + "\" are; partitionBy has to name the columns that are there, in their order");
          }
          return folders.size() < most;
        });
    return folders;
  }

  /** Looks at an entry of a directory, and says whether to go on. */
  interface Look {
    boolean at(JsonNode entry) throws IOException;
  }

  /** Looks at the entries of a directory, in the order of their names. One that is not there has none. */
  static void list(Connection server, String directory, Look look) throws IOException {
    String after = null;
    List<JsonNode> page;
    do {
      try {
        page = server.act("list", Command.empty().with("path", directory).with("after", after).with("limit", (Long) PAGE));
      } catch (ForebayException e) {
        if (e.is(Status.Code.NOT_FOUND)) {
          return;
        }
        throw e;
      }
      for (JsonNode entry : page) {
        after = entry.path("path").asText();
        if (!look.at(entry)) {
          return;
        }
      }
    } while (page.size() == PAGE);
  }

  private static ForebayException refuse(String text) {
    return new ForebayException(Status.Code.FAILED_PRECONDITION.name(), text);
  }
}
