package io.forebay.spark;

import com.fasterxml.jackson.databind.JsonNode;
import io.grpc.Status;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.LinkedHashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import org.apache.arrow.vector.types.pojo.ArrowType;
import org.apache.arrow.vector.types.pojo.Field;
import org.apache.arrow.vector.types.pojo.Schema;
import org.apache.spark.sql.types.DataType;
import org.apache.spark.sql.types.StructField;
import org.apache.spark.sql.types.StructType;

/**
 * A directory of folders {@code k=v} as its readers see it: which columns come from the names of folders, and the texts there are. It is
 * what was there when it was looked at; folders may have come since.
 *
 * @param texts by column, each text once, with {@code null} for Hive's null
 */
record FolderTable(Map<String, Set<String>> texts) {
  /** No folders. */
  static final FolderTable NONE = new FolderTable(Map.of());

  private static final String ASIDE = "_.";

  /** Looks at the dataset {@code root}, which is read with {@code schema}. */
  static FolderTable look(Connection server, String root, Schema schema) throws IOException {
    List<Field> fields = schema.getFields();
    // Columns of folders are the last ones, and most datasets have none.
    if (fields.isEmpty() || !isText(fields.get(fields.size() - 1)) || !isOfFolders(server, root)) {
      return NONE;
    }
    List<String> keys = new ArrayList<>();
    String leaf = leaf(server, root, keys);
    if (leaf == null) {
      return NONE;
    }
    // A column that the files have themselves is not the folders'.
    List<String> own = server.schema(Command.dataset(leaf)).getFields().stream().map(Field::getName).toList();
    Map<String, Set<String>> texts = new LinkedHashMap<>();
    for (Field field : fields) {
      if (isText(field) && keys.contains(field.getName()) && !own.contains(field.getName())) {
        texts.put(field.getName(), new LinkedHashSet<>());
      }
    }
    collect(server, root, keys, texts);
    return new FolderTable(Collections.unmodifiableMap(texts));
  }

  private static boolean isText(Field field) {
    return field.getType().getTypeID() == ArrowType.ArrowTypeID.Utf8 && field.getDictionary() == null && field.isNullable();
  }

  private static boolean isOfFolders(Connection server, String root) throws IOException {
    JsonNode entry = server.actOne("stat", Command.empty().with("path", root));
    return entry.path("kind").asText().equals("dir") && !entry.hasNonNull("version");
  }

  /** One folder below {@code directory} that has rows of its own, with the columns on the way to it; {@code null} where none has. */
  private static String leaf(Connection server, String directory, List<String> keys) throws IOException {
    List<Folder> folders = folders(server, directory);
    for (Folder folder : folders) {
      keys.add(folder.key());
      String leaf = folder.published() ? folder.path() : leaf(server, folder.path(), keys);
      if (leaf != null) {
        return leaf;
      }
      keys.remove(keys.size() - 1);
    }
    return folders.isEmpty() && !keys.isEmpty() && isDataset(server, directory) ? directory : null;
  }

  private static boolean isDataset(Connection server, String path) throws IOException {
    try {
      server.schema(Command.dataset(path));
      return true;
    } catch (ForebayException e) {
      if (e.is(Status.Code.NOT_FOUND) || e.is(Status.Code.FAILED_PRECONDITION)) {
        return false;
      }
      throw e;
    }
  }

  private static void collect(Connection server, String root, List<String> keys, Map<String, Set<String>> texts) throws IOException {
    List<String> directories = List.of(root);
    for (String key : keys) {
      List<String> below = new ArrayList<>();
      for (String directory : directories) {
        for (Folder folder : folders(server, directory)) {
          if (folder.key().equals(key)) {
            below.add(folder.path());
            texts.getOrDefault(key, new LinkedHashSet<>()).add(folder.text());
          }
        }
      }
      directories = below;
    }
  }

  /**
   * A folder {@code k=v}.
   *
   * @param path as it goes over the wire
   * @param text what {@code v} stands for, or {@code null}
   * @param published whether it is a dataset itself
   */
  record Folder(String path, String key, String text, boolean published) {
    /** The folder that an entry of a listing is, or {@code null}. */
    static Folder of(JsonNode entry) {
      String path = entry.path("path").asText();
      byte[] name = unescaped(path.substring(path.lastIndexOf('/') + 1).getBytes(StandardCharsets.UTF_8));
      int equals = 0;
      while (equals < name.length && name[equals] != '=') {
        equals++;
      }
      if (!entry.path("kind").asText().equals("dir") || equals == 0 || equals == name.length || ASIDE.indexOf(name[0]) >= 0) {
        return null;
      }
      String value = text(Arrays.copyOfRange(name, equals + 1, name.length));
      return new Folder(path, text(Arrays.copyOf(name, equals)), value.equals(Folders.NULL) ? null : value, entry.hasNonNull("version"));
    }

    /** The text that Hive has escaped. */
    private static String text(byte[] escaped) {
      return new String(unescaped(escaped), StandardCharsets.UTF_8);
    }
  }

  private static List<Folder> folders(Connection server, String directory) throws IOException {
    List<Folder> folders = new ArrayList<>();
    Folders.list(
        server,
        directory,
        entry -> {
          Folder folder = Folder.of(entry);
          return folder == null || folders.add(folder);
        });
    return folders;
  }

  /** Bytes with each {@code %XX} as the byte that it is. */
  private static byte[] unescaped(byte[] text) {
    ByteArrayOutputStream out = new ByteArrayOutputStream(text.length);
    for (int k = 0; k < text.length; k++) {
      int high = k + 2 < text.length && text[k] == '%' ? Character.digit(text[k + 1], 16) : -1;
      int low = high < 0 ? -1 : Character.digit(text[k + 2], 16);
      out.write(low < 0 ? text[k] : 16 * high + low);
      k += low < 0 ? 0 : 2;
    }
    return out.toByteArray();
  }

  boolean has(String column) {
    return texts.containsKey(column);
  }

  /** The schema with the types that the texts have. */
  StructType typed(StructType schema, FolderTypes types) {
    return new StructType(
        Arrays.stream(schema.fields())
            .map(field -> has(field.name()) ? typed(field, types.of(texts.get(field.name()))) : field)
            .toArray(StructField[]::new));
  }

  private static StructField typed(StructField field, DataType type) {
    return new StructField(field.name(), type, field.nullable(), field.metadata());
  }
}
