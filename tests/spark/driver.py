"""A driver for tests that kill it: python -m tests.spark.driver ADDR FOLDER PATH [NAME=VALUE …]

`hold=K` holds task K at the gate in FOLDER, `first=K,…` only the first attempts of tasks, with speculation; `rows=N` says how many,
`master=URL` where. `files=V` writes Parquet with a folder for each day to the URL that PATH is, by version V of Hadoop's commit algorithm.
Without it the rest are options of format("forebay"); with `folders=yes` it writes a folder for each day; `save=MODE` is Spark's save mode.
"""

import sys

from tests.spark import cluster

SPECULATION = {"": "true", ".interval": "200ms", ".quantile": "0.5", ".minTaskRuntime": "1s"}


def main(addr, folder, path, *given):
    options = dict(option.split("=", 1) for option in given)
    rows, hold, first = int(options.pop("rows")), options.pop("hold", ""), options.pop("first", "")
    settings = {"spark.sql.execution.arrow.maxRecordsPerBatch": "10000", "spark.sql.maxConcurrentOutputFileWriters": "10"}
    settings |= {f"spark.{side}.extraJavaOptions": cluster.QUICK for side in ("driver", "executor")}
    if first:
        # Only the first attempts hold, and slow tasks get a copy.
        settings |= {f"spark.speculation{k}": v for k, v in SPECULATION.items()}
    master = options.pop("master", "local-cluster[2,1,1024]")
    spark = cluster.session(folder, master=master, **{k.replace(".", "__"): v for k, v in settings.items()})
    holds = {(int(task), 0 if first else None) for task in (first or hold).split(",") if task}
    df = cluster.numbers(spark, rows, folder, holds, 10)
    if version := options.pop("files", None):
        cluster.write_files(df, path, version)
    else:
        folders, save = options.pop("folders", ""), options.pop("save", "append")
        writer = cluster.by_day(df).write.partitionBy("day") if folders else df.write
        writer.format("forebay").option("addr", addr).options(**options).mode(save).save(path)
    spark.stop()


if __name__ == "__main__":
    main(*sys.argv[1:])
