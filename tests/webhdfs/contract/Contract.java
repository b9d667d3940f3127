import java.io.IOException;
import java.net.URI;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import org.apache.hadoop.conf.Configuration;
import org.apache.hadoop.fs.FSMainOperationsBaseTest;
import org.apache.hadoop.fs.FileSystem;
import org.apache.hadoop.fs.FileSystemContractBaseTest;
import org.apache.hadoop.fs.Path;
import org.apache.hadoop.fs.contract.*;
import org.junit.Before;
import org.junit.runner.Description;
import org.junit.runner.JUnitCore;
import org.junit.runner.notification.Failure;
import org.junit.runner.notification.RunListener;

/**
 * Runs Hadoop's contract tests of file systems against a URI, in one process.
 *
 * <p>{@code java -cp FOLDER:JARS Contract.java URI [CLASS[.METHOD]…]} prints a line of JSON for each class:
 * {@code {"class": "Rename", "passed": 10, "skipped": 0, "failed": {"testX": "why"}}}.
 */
public final class Contract {
  private static String uri;

  /** What Hadoop's tests may expect, from contract/webhdfs.xml. */
  public static final class Bonded extends AbstractBondedFSContract {
    Bonded(Configuration conf) {
      super(conf);
      addConfResource("contract/webhdfs.xml");
      conf.set("fs.contract.test.fs.webhdfs", uri);
    }

    @Override
    public String getScheme() {
      return "webhdfs";
    }
  }

  public static class Append extends AbstractContractAppendTest {
    @Override protected AbstractFSContract createContract(Configuration conf) { return new Bonded(conf); }
  }

  public static class BulkDelete extends AbstractContractBulkDeleteTest {
    @Override protected AbstractFSContract createContract(Configuration conf) { return new Bonded(conf); }
  }

  public static class Concat extends AbstractContractConcatTest {
    @Override protected AbstractFSContract createContract(Configuration conf) { return new Bonded(conf); }
  }

  public static class ContentSummary extends AbstractContractContentSummaryTest {
    @Override protected AbstractFSContract createContract(Configuration conf) { return new Bonded(conf); }
  }

  public static class CopyFromLocal extends AbstractContractCopyFromLocalTest {
    @Override protected AbstractFSContract createContract(Configuration conf) { return new Bonded(conf); }
  }

  public static class Create extends AbstractContractCreateTest {
    @Override protected AbstractFSContract createContract(Configuration conf) { return new Bonded(conf); }
  }

  public static class Delete extends AbstractContractDeleteTest {
    @Override protected AbstractFSContract createContract(Configuration conf) { return new Bonded(conf); }
  }

  public static class Etag extends AbstractContractEtagTest {
    @Override protected AbstractFSContract createContract(Configuration conf) { return new Bonded(conf); }
  }

  public static class GetFileStatus extends AbstractContractGetFileStatusTest {
    @Override protected AbstractFSContract createContract(Configuration conf) { return new Bonded(conf); }
  }

  public static class LeaseRecovery extends AbstractContractLeaseRecoveryTest {
    @Override protected AbstractFSContract createContract(Configuration conf) { return new Bonded(conf); }
  }

  public static class Mkdir extends AbstractContractMkdirTest {
    @Override protected AbstractFSContract createContract(Configuration conf) { return new Bonded(conf); }
  }

  public static class MultipartUploader extends AbstractContractMultipartUploaderTest {
    @Override protected AbstractFSContract createContract(Configuration conf) { return new Bonded(conf); }
    @Override protected int partSizeInBytes() { return 1 << 16; }
    @Override protected boolean finalizeConsumesUploadIdImmediately() { return true; }
    @Override protected boolean supportsConcurrentUploadsToSamePath() { return true; }
  }

  public static class Open extends AbstractContractOpenTest {
    @Override protected AbstractFSContract createContract(Configuration conf) { return new Bonded(conf); }
  }

  public static class PathHandle extends AbstractContractPathHandleTest {
    public PathHandle(String name, org.apache.hadoop.fs.Options.HandleOpt[] opts, boolean serialized) {
      super(name, opts, serialized);
    }

    @Override protected AbstractFSContract createContract(Configuration conf) { return new Bonded(conf); }
  }

  public static class Rename extends AbstractContractRenameTest {
    @Override protected AbstractFSContract createContract(Configuration conf) { return new Bonded(conf); }
  }

  public static class RootDirectory extends AbstractContractRootDirectoryTest {
    @Override protected AbstractFSContract createContract(Configuration conf) { return new Bonded(conf); }
  }

  public static class SafeMode extends AbstractContractSafeModeTest {
    @Override protected AbstractFSContract createContract(Configuration conf) { return new Bonded(conf); }
  }

  public static class Seek extends AbstractContractSeekTest {
    @Override protected AbstractFSContract createContract(Configuration conf) { return new Bonded(conf); }
  }

  public static class SetTimes extends AbstractContractSetTimesTest {
    @Override protected AbstractFSContract createContract(Configuration conf) { return new Bonded(conf); }
  }

  public static class StreamIOStatistics extends AbstractContractStreamIOStatisticsTest {
    @Override protected AbstractFSContract createContract(Configuration conf) { return new Bonded(conf); }
  }

  public static class Unbuffer extends AbstractContractUnbufferTest {
    @Override protected AbstractFSContract createContract(Configuration conf) { return new Bonded(conf); }
  }

  public static class VectoredRead extends AbstractContractVectoredReadTest {
    public VectoredRead(String bufferType) { super(bufferType); }

    @Override protected AbstractFSContract createContract(Configuration conf) { return new Bonded(conf); }
  }

  public static class FileSystemContract extends FileSystemContractBaseTest {
    @Before
    public void setUp() throws Exception {
      fs = FileSystem.get(URI.create(uri), new Configuration());
    }
  }

  public static class FSMainOperations extends FSMainOperationsBaseTest {
    public FSMainOperations() { super(); }

    @Override
    protected FileSystem createFileSystem() throws IOException {
      return FileSystem.get(URI.create(uri), new Configuration());
    }

    @Override
    protected Path getDefaultWorkingDirectory() {
      return fSys.makeQualified(new Path("/user/" + System.getProperty("user.name")));
    }
  }

  private static final Class<?>[] ALL = {
    Append.class, BulkDelete.class, Concat.class, ContentSummary.class, CopyFromLocal.class, Create.class, Delete.class, Etag.class,
    GetFileStatus.class, LeaseRecovery.class, Mkdir.class, MultipartUploader.class, Open.class, PathHandle.class, Rename.class,
    RootDirectory.class, SafeMode.class, Seek.class, SetTimes.class, StreamIOStatistics.class, Unbuffer.class, VectoredRead.class,
    FileSystemContract.class, FSMainOperations.class,
  };

  /** Counts how the tests of one class ended. Some run several times by one name. */
  private static final class Counts extends RunListener {
    int run;
    int skipped;
    int failures;
    final Map<String, String> failed = new LinkedHashMap<>();

    @Override public void testFinished(Description test) { run++; }

    @Override public void testAssumptionFailure(Failure failure) { skipped++; }

    @Override public void testFailure(Failure failure) {
      if (Boolean.getBoolean("traces")) {
        failure.getException().printStackTrace();
      }
      failures++;
      String name = failure.getDescription().getMethodName();
      failed.put(name == null ? "the class" : name, String.valueOf(failure.getException()));
    }

    String json(String name) {
      List<String> why = new ArrayList<>();
      failed.forEach((test, text) -> why.add(quoted(test) + ": " + quoted(text)));
      return String.format("{\"class\": \"%s\", \"passed\": %d, \"skipped\": %d, \"failed\": {%s}}",
          name, run - skipped - failures, skipped, String.join(", ", why));
    }
  }

  private static String quoted(String text) {
    StringBuilder out = new StringBuilder("\"");
    text.chars().limit(400).forEach(c -> out.append(c < 32 || c > 126 || c == '"' || c == '\\' ? String.format("\\u%04x", c) : "" + (char) c));
    return out.append('"').toString();
  }

  public static void main(String[] args) {
    uri = args[0];
    Set<String> wanted = new LinkedHashSet<>(List.of(args).subList(1, args.length));
    for (Class<?> tests : ALL) {
      if (!wanted.isEmpty() && !wanted.contains(tests.getSimpleName())) {
        continue;
      }
      Counts counts = new Counts();
      JUnitCore core = new JUnitCore();
      core.addListener(counts);
      core.run(tests);
      System.out.println(counts.json(tests.getSimpleName()));
    }
    System.exit(0);
  }
}
