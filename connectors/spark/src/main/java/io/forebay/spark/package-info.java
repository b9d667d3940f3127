/**
 * Forebay for Spark: {@code format("forebay")} reads and writes the datasets of a Forebay server, in batches and in streams.
 *
 * <p>The floor plan: {@link io.forebay.spark.ForebayProvider} is the door. Reads go through {@code DatasetScanBuilder}, {@code DatasetScan}
 * and {@code PartReader}; streams read through {@code VersionStream}. Writes go through {@code WriteSession} on the driver and {@code
 * TaskWriter} on executors, streams with {@code EpochLog} beside it. {@code Connection} makes all calls; {@code ArrowTypes}, {@code
 * ArrowColumns} and {@code RowAppender} know the types.
 *
 * <p>What is deliberately absent: any truth. A session, a version and which attempt of a task counts are the server's to say.
 */
package io.forebay.spark;
