package io.forebay.spark;

import java.io.Serializable;
import java.util.HashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import org.apache.spark.sql.util.CaseInsensitiveStringMap;

/**
 * What users say by {@code option(…)}, checked. Names are those of docs/spark.md; unknown ones are Spark's own business.
 *
 * @param server where to
 * @param path the dataset
 * @param mode what a write does with what is there: {@code append}, {@code overwrite}, {@code create}, or {@code null}
 * @param session keys that a session is begun with, as they go over the wire
 * @param job what the writer calls itself, or {@code null}: Spark's id of the query
 * @param batchRows most rows of a batch
 * @param successFile whether a publish also writes {@code _SUCCESS}
 * @param version a published version to read, or {@code null}
 * @param waitFor how long a read waits for the dataset to come into being, or {@code null}
 * @param follow whether a stream reads committed tasks before their job is published
 * @param restart whether a stream begins anew when the dataset was overwritten, instead of failing
 * @param folders columns whose values name folders; the last columns of the rows are the texts of these values
 * @param dynamic whether an overwrite of folders leaves those alone that no row comes to
 * @param rebalance whether the rows of a folder are brought to one task, or few, before they are written
 */
record Options(
    Server server,
    String path,
    String mode,
    Map<String, String> session,
    String job,
    int batchRows,
    boolean successFile,
    Long version,
    String waitFor,
    boolean follow,
    boolean restart,
    List<String> folders,
    boolean dynamic,
    boolean rebalance)
    implements Serializable {
  static final String ADDR = "addr";
  static final String TOKEN = "token";
  static final String CA_FILE = "caFile";
  static final String PATH = "path";
  static final String MODE = "mode";
  static final String ACK = "ack";
  static final String SESSION_TIMEOUT = "sessionTimeout";
  static final String FORMAT = "format";
  static final String COMPRESSION = "compression";
  static final String BATCH_ROWS = "batchRows";
  static final String SUCCESS_FILE = "successFile";
  static final String VERSION = "version";
  static final String WAIT = "wait";
  static final String FOLLOW = "follow";
  static final String JOB = "job";
  static final String ON_OVERWRITE = "onOverwrite";
  static final String PARTITION_OVERWRITE_MODE = "partitionOverwriteMode";
  static final String DISTRIBUTION = "distribution";

  /** From {@link BatchSave} to what it names; not for users. */
  static final String FOLDERS = "__folders";

  /** All names, for what is set once for a Spark session ({@code spark.datasource.forebay.NAME}). */
  static final List<String> NAMES =
      List.of(
          ADDR, TOKEN, CA_FILE, MODE, ACK, SESSION_TIMEOUT, FORMAT, COMPRESSION, BATCH_ROWS, SUCCESS_FILE, VERSION, WAIT, FOLLOW, JOB, ON_OVERWRITE, DISTRIBUTION,
          PARTITION_OVERWRITE_MODE);

  /** Rows of a batch unless told otherwise; a batch also ends at {@link RowBatch#BYTES_MAX}. */
  private static final int BATCH_ROWS_DEFAULT = 1 << 16;

  private static final int BATCH_ROWS_MAX = 1 << 24;

  /** Reads the options. Addresses and tokens that are not given come from FOREBAY_ADDR and FOREBAY_TOKEN. */
  static Options parse(CaseInsensitiveStringMap given) {
    return parse(given, System.getenv());
  }

  static Options parse(CaseInsensitiveStringMap given, Map<String, String> environment) {
    String addr = first(given.get(ADDR), environment.get("FOREBAY_ADDR"), Server.DEFAULT_ADDR);
    String token = first(given.get(TOKEN), environment.get("FOREBAY_TOKEN"));
    Map<String, String> session = new HashMap<>();
    put(session, "ack", given.get(ACK));
    put(session, "timeout", given.get(SESSION_TIMEOUT));
    put(session, "format", oneOf(FORMAT, given.get(FORMAT), "arrow", "parquet"));
    put(session, "compression", oneOf(COMPRESSION, given.get(COMPRESSION), "none", "lz4", "zstd"));
    return new Options(
        Server.parse(addr, given.get(CA_FILE), token == null ? null : new Secret(token)),
        path(given),
        oneOf(MODE, given.get(MODE), "append", "overwrite", "create"),
        Map.copyOf(session),
        given.get(JOB),
        batchRows(given),
        given.getBoolean(SUCCESS_FILE, false),
        version(given.get(VERSION)),
        given.get(WAIT),
        given.getBoolean(FOLLOW, false),
        "restart".equals(oneOf(ON_OVERWRITE, given.get(ON_OVERWRITE), "fail", "restart")),
        Folders.names(given.get(FOLDERS)),
        "dynamic".equals(oneOf(PARTITION_OVERWRITE_MODE, given.get(PARTITION_OVERWRITE_MODE), "static", "dynamic")),
        !"none".equals(oneOf(DISTRIBUTION, given.get(DISTRIBUTION), "rebalance", "none")));
  }

  private static String path(CaseInsensitiveStringMap given) {
    String path = given.get(PATH);
    if (path == null && given.get("paths") != null) {
      throw new IllegalArgumentException("format forebay takes one path; union what several give");
    }
    if (path == null || path.isBlank()) {
      throw new IllegalArgumentException("no path is given; say save(\"/features/day=1\") or load(\"/features/day=1\")");
    }
    if (!path.startsWith("/")) {
      throw new IllegalArgumentException(
          "path \"" + path + "\" is not absolute; write it like \"/features/day=1\" and the server as option addr");
    }
    return path;
  }

  private static int batchRows(CaseInsensitiveStringMap given) {
    int rows = given.getInt(BATCH_ROWS, BATCH_ROWS_DEFAULT);
    if (rows < 1 || rows > BATCH_ROWS_MAX) {
      throw new IllegalArgumentException("option batchRows is " + rows + "; 1 to " + BATCH_ROWS_MAX + " are allowed");
    }
    return rows;
  }

  private static Long version(String text) {
    if (text == null) {
      return null;
    }
    try {
      return Long.valueOf(Long.parseUnsignedLong(text.trim()));
    } catch (NumberFormatException e) {
      throw new IllegalArgumentException("option version is \"" + text + "\"; it is a number that action versions lists", e);
    }
  }

  private static String oneOf(String name, String value, String... allowed) {
    if (value == null) {
      return null;
    }
    String lower = value.trim().toLowerCase(Locale.ROOT);
    if (!List.of(allowed).contains(lower)) {
      throw new IllegalArgumentException("option " + name + " is \"" + value + "\"; it is one of " + String.join(", ", allowed));
    }
    return lower;
  }

  private static void put(Map<String, String> map, String key, String value) {
    if (value != null) {
      map.put(key, value);
    }
  }

  private static String first(String... values) {
    for (String value : values) {
      if (value != null && !value.isBlank()) {
        return value;
      }
    }
    return null;
  }
}
