"""The job: features from raw events, written to Forebay.   python etl.py ADDR PATH ROWS JAR"""

import sys

from pyspark.sql import SparkSession, functions as f


def events(spark, rows):
    """Clicks of a thousand users, some of them broken, as they would come from a log."""
    return spark.range(0, rows, 1, 16).select(
        "id",
        (f.xxhash64("id") % 1000).alias("user"),
        f.when(f.col("id") % 97 == 0, None).otherwise(f.timestamp_seconds(1_700_000_000 + f.col("id") % 86_400)).alias("at"),
        (f.rand(7) * 10).alias("price"),
    )


def features(clicks):
    clean = clicks.where("at is not null")
    hour = f.hour("at")
    return clean.select(
        "id",
        "user",
        f.sin(hour * 0.2618).cast("float").alias("hour_sin"),
        f.cos(hour * 0.2618).cast("float").alias("hour_cos"),
        f.log1p("price").cast("float").alias("price_log"),
        ((f.col("price") > 6) | (hour > 20)).cast("float").alias("label"),
    )


def main(addr, path, rows, jar):
    builder = SparkSession.builder.master("local[2]").appName("etl").config("spark.jars", jar).config("spark.ui.enabled", "false")
    spark = builder.config("spark.driver.host", "127.0.0.1").config("spark.driver.bindAddress", "127.0.0.1").getOrCreate()
    spark.sparkContext.setLogLevel("ERROR")
    features(events(spark, int(rows))).write.format("forebay").option("addr", addr).mode("overwrite").save(path)
    spark.stop()


if __name__ == "__main__":
    main(*sys.argv[1:])
