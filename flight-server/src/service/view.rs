//! What of a dataset a read wants to see: columns in an order, rows by a condition, so many and no more.
//!
//! The condition is a SQL expression over the columns, understood by DataFusion; names are taken as they are written. It may use
//! columns that are not asked for. What of it needs no row is worked out when it is understood, and it is tried on no rows then: a
//! condition that can not be carried out is told with the plan of a read and not in the middle of its stream. It does not own
//! decoding: batches come in decoded.

use crate::error;
use arrow_array::{Array, ArrayRef, BooleanArray, RecordBatch, StringArray, cast::AsArray};
use arrow_schema::{DataType, Schema, SchemaRef, TimeUnit};
use arrow_select::filter::filter_record_batch;
use bytes::Bytes;
use datafusion::{
    common::{
        DFSchema,
        tree_node::{Transformed, TreeNode},
    },
    logical_expr::{Cast, Expr, simplify::SimplifyContext, utils::split_conjunction_owned},
    optimizer::simplify_expressions::ExprSimplifier,
    physical_plan::PhysicalExpr,
    prelude::{SessionConfig, SessionContext},
    scalar::ScalarValue,
};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeSet,
    collections::VecDeque,
    fmt,
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
};
use tonic::Status;

/// Schemas lately seen, so that a ticket needs no plan of its own.
const SCHEMAS_MAX: usize = 256;

/// Functions that make much from little: a filter must not be able to eat the memory.
const TOO_GENEROUS: &[&str] = &[
    "repeat",
    "lpad",
    "rpad",
    "array_repeat",
    "list_repeat",
    "array_resize",
    "list_resize",
    "range",
    "generate_series",
];

/// What of a dataset a read wants to see.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct View {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) columns: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) filter: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) limit: Option<u64>,
}

impl View {
    /// Whether it shows batches as they are.
    pub(crate) fn is_whole(&self) -> bool {
        self == &Self::default()
    }
}

/// Understands views; remembers schemas.
pub(crate) struct Views {
    sql: SessionContext,
    seen: Mutex<VecDeque<(u64, StreamSchema)>>,
}

impl fmt::Debug for Views {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Views").finish_non_exhaustive()
    }
}

/// The schema of stored messages.
#[derive(Clone, Debug)]
pub(crate) struct StreamSchema {
    /// What it says.
    pub(crate) schema: SchemaRef,
    /// The message that carries it, as it was first sent.
    pub(crate) message: Bytes,
}

/// A view of one schema, ready to be applied. Its limit counts down.
#[derive(Debug)]
pub(crate) struct Lens {
    schema: SchemaRef,
    decode: Vec<usize>,
    keep: Vec<usize>,
    condition: Option<Arc<dyn PhysicalExpr>>,
    left: Option<u64>,
}

impl Views {
    pub(crate) fn new() -> Self {
        let mut config = SessionConfig::new();
        config.options_mut().sql_parser.enable_ident_normalization = false;
        let sql = SessionContext::new_with_config(config);
        TOO_GENEROUS.iter().for_each(|name| sql.deregister_udf(name));
        Self {
            sql,
            seen: Mutex::default(),
        }
    }

    /// Remembers a schema; the number names it for [`Views::recall`].
    pub(crate) fn remember(&self, schema: &StreamSchema) -> u64 {
        let mut hasher = DefaultHasher::new();
        schema.message.hash(&mut hasher);
        let name = hasher.finish();
        let mut seen = self.seen.lock();
        if !seen.iter().any(|(known, _)| *known == name) {
            if seen.len() >= SCHEMAS_MAX {
                seen.pop_front();
            }
            seen.push_back((name, schema.clone()));
        }
        name
    }

    /// The schema of that number, if it has not been forgotten.
    pub(crate) fn recall(&self, name: u64) -> Option<StreamSchema> {
        self.seen
            .lock()
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, schema)| schema.clone())
    }

    /// Makes `view` ready for batches of `schema`. INVALID_ARGUMENT names what is wrong.
    pub(crate) fn lens(&self, view: &View, schema: &SchemaRef) -> Result<Lens, Status> {
        let wanted = match &view.columns {
            None => (0..schema.fields().len()).collect(),
            Some(names) => names
                .iter()
                .map(|name| column(schema, name))
                .collect::<Result<Vec<_>, _>>()?,
        };
        let mut decode: BTreeSet<usize> = wanted.iter().copied().collect();
        let condition = match &view.filter {
            None => None,
            Some(sql) => {
                let (expression, used) = self.parse(sql, schema)?;
                decode.extend(&used);
                Some((sql, expression))
            }
        };
        let decode: Vec<usize> = decode.into_iter().collect();
        let decoded = schema.project(&decode).map_err(|e| error::wrong(e.to_string()))?;
        let condition = condition
            .map(|(sql, expression)| self.compile(sql, expression, &decoded))
            .transpose()?;
        let keep: Vec<usize> = wanted
            .iter()
            .map(|at| decode.binary_search(at).expect("what is wanted is decoded"))
            .collect();
        let schema = schema.project(&wanted).map_err(|e| error::wrong(e.to_string()))?;
        Ok(Lens {
            schema: Arc::new(schema),
            decode,
            keep,
            condition,
            left: view.limit,
        })
    }

    /// The expression, and the columns it uses.
    fn parse(&self, sql: &str, schema: &Schema) -> Result<(Expr, Vec<usize>), Status> {
        let columns = DFSchema::try_from(schema.clone()).map_err(|e| refuse(sql, e))?;
        let expression = self.sql.parse_sql_expr(sql, &columns).map_err(|e| refuse(sql, e))?;
        let used = expression
            .column_refs()
            .into_iter()
            .map(|c| column(schema, &c.name))
            .collect::<Result<_, _>>()?;
        Ok((expression, used))
    }

    /// For which of these folders the filter may be true of a row: a part of it that uses nothing but the columns `keys`, which have one
    /// value in each folder, is tried on that value. What can not be tried leaves the folder in.
    pub(crate) fn folders(
        &self,
        view: &View,
        schema: &SchemaRef,
        keys: &[String],
        folders: &[Vec<Option<String>>],
    ) -> Result<Vec<bool>, Status> {
        let mut left = vec![true; folders.len()];
        let Some(sql) = &view.filter else { return Ok(left) };
        let (expression, _) = self.parse(sql, schema)?;
        let fields = keys.iter().map(|key| Ok(schema.field(column(schema, key)?).clone()));
        let values = Arc::new(Schema::new(fields.collect::<Result<Vec<_>, Status>>()?));
        let texts = (0..keys.len()).map(|at| folders.iter().map(move |values| values[at].as_deref()));
        let texts = texts.map(|texts| Arc::new(texts.collect::<StringArray>()) as ArrayRef);
        let Ok(values) = RecordBatch::try_new(values, texts.collect()) else {
            return Ok(left);
        };
        for part in split_conjunction_owned(expression) {
            let used = part.column_refs();
            if used.is_empty() || used.iter().any(|column| !keys.contains(&column.name)) {
                continue;
            }
            let condition = self.compile(sql, part, values.schema_ref());
            if let Ok(truth) = condition.and_then(|condition| truth(condition.as_ref(), &values)) {
                left.iter_mut()
                    .zip(&truth)
                    .for_each(|(left, is)| *left &= is == Some(true));
            }
        }
        Ok(left)
    }

    fn compile(&self, sql: &str, expression: Expr, decoded: &Schema) -> Result<Arc<dyn PhysicalExpr>, Status> {
        let columns = DFSchema::try_from(decoded.clone()).map_err(|e| refuse(sql, e))?;
        let condition = settled(expression, &columns)
            .and_then(|expression| self.sql.create_physical_expr(expression, &columns))
            .map_err(|e| refuse(sql, e))?;
        match condition.data_type(decoded).map_err(|e| refuse(sql, e))? {
            DataType::Boolean => {}
            other => {
                return Err(refuse(
                    sql,
                    format!("it is of type {other}, not a condition that is true or false"),
                ));
            }
        }
        let no_rows = RecordBatch::new_empty(Arc::new(decoded.clone()));
        condition.evaluate(&no_rows).map_err(|e| refuse(sql, e))?;
        Ok(condition)
    }
}

/// The expression with everything worked out that needs no row. Functions such as `arrow_cast` are there only before this step.
///
/// It is given no time of day: parts are read at different times, and `now()` would mean another instant in each.
fn settled(expression: Expr, columns: &DFSchema) -> datafusion::error::Result<Expr> {
    let context = SimplifyContext::builder().with_schema(Arc::new(columns.clone()));
    let simplifier = ExprSimplifier::new(context.build());
    let expression = expression.transform_up(|expr| Ok(coarse_time(expr)))?.data;
    simplifier.simplify(simplifier.coerce(expression, columns)?)
}

/// SQL's timestamps are of nanoseconds, which end in 2262. A literal beyond is taken in the finest unit that holds it.
fn coarse_time(expr: Expr) -> Transformed<Expr> {
    let Expr::Cast(Cast { expr: text, field }) = &expr else {
        return Transformed::no(expr);
    };
    let (Expr::Literal(text @ ScalarValue::Utf8(_), _), DataType::Timestamp(TimeUnit::Nanosecond, zone)) =
        (text.as_ref(), field.data_type())
    else {
        return Transformed::no(expr);
    };
    let units = [
        TimeUnit::Nanosecond,
        TimeUnit::Microsecond,
        TimeUnit::Millisecond,
        TimeUnit::Second,
    ];
    let mut times = units
        .into_iter()
        .map(|unit| text.cast_to(&DataType::Timestamp(unit, zone.clone())));
    match times.find_map(Result::ok) {
        Some(time) => Transformed::yes(Expr::Literal(time, None)),
        None => Transformed::no(expr),
    }
}

impl Lens {
    /// The schema of what comes out.
    pub(crate) fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// The columns of the dataset that must be decoded, in its order.
    pub(crate) fn decode(&self) -> &[usize] {
        &self.decode
    }

    /// Whether nothing more will come out.
    pub(crate) fn is_done(&self) -> bool {
        self.left == Some(0)
    }

    /// What of a batch is seen. The batch has the columns of [`Lens::decode`], or all.
    pub(crate) fn apply(&mut self, batch: RecordBatch) -> Result<RecordBatch, Status> {
        let batch = match batch.num_columns() == self.decode.len() {
            true => batch,
            false => batch.project(&self.decode).map_err(failed)?,
        };
        let batch = match &self.condition {
            None => batch,
            Some(condition) => filter_record_batch(&batch, &truth(condition.as_ref(), &batch)?).map_err(failed)?,
        };
        let batch = batch.project(&self.keep).map_err(failed)?;
        let rows = batch.num_rows() as u64;
        let Some(left) = &mut self.left else { return Ok(batch) };
        let take = rows.min(*left);
        *left -= take;
        Ok(if take == rows {
            batch
        } else {
            batch.slice(0, take as usize)
        })
    }
}

/// Which rows meet a condition; one that is neither true nor false does not.
fn truth(condition: &dyn PhysicalExpr, batch: &RecordBatch) -> Result<BooleanArray, Status> {
    let value = condition
        .evaluate(batch)
        .and_then(|value| value.into_array(batch.num_rows()));
    let value = value.map_err(|e| error::wrong(format!("the filter failed: {}", first_line(&e))))?;
    let truth = value
        .as_boolean_opt()
        .ok_or_else(|| error::wrong("the filter is no condition"))?;
    Ok(match truth.null_count() {
        0 => truth.clone(),
        _ => arrow_select::filter::prep_null_mask_filter(truth),
    })
}

/// The position of a column.
fn column(schema: &Schema, name: &str) -> Result<usize, Status> {
    let mut found = schema
        .fields()
        .iter()
        .enumerate()
        .filter(|(_, field)| field.name() == name);
    match (found.next(), found.next()) {
        (Some((at, _)), None) => Ok(at),
        (Some(_), Some(_)) => Err(error::wrong(format!(
            "more than one column is called {name:?}; none can be asked for"
        ))),
        (None, _) => {
            let some: Vec<&str> = schema.fields().iter().take(20).map(|f| f.name().as_str()).collect();
            Err(error::wrong(format!(
                "there is no column {name:?}; there are {}",
                some.join(", ")
            )))
        }
    }
}

fn refuse(sql: &str, why: impl fmt::Display) -> Status {
    error::wrong(format!(
        "the filter {:?} is not understood: {}",
        super::crop(sql),
        first_line(&why)
    ))
}

/// The first line: DataFusion's errors may carry a back trace.
fn first_line(why: &impl fmt::Display) -> String {
    why.to_string().lines().next().unwrap_or_default().to_owned()
}

fn failed(why: arrow_schema::ArrowError) -> Status {
    error::status(
        tonic::Code::Internal,
        &format!("a batch could not be cut to the view: {why}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow_array::{Float64Array, Int64Array, StringArray};
    use arrow_schema::Field;
    use tonic::Code;

    fn ten() -> RecordBatch {
        let ids = Int64Array::from_iter_values(0..10);
        let x: Float64Array = (0..10).map(|i| (i != 5).then_some(f64::from(i) / 2.0)).collect();
        let s = StringArray::from_iter_values((0..10).map(|i| ["even", "odd"][i % 2]));
        RecordBatch::try_from_iter([
            ("id", Arc::new(ids) as _),
            ("Ünd X", Arc::new(x) as _),
            ("s", Arc::new(s) as _),
        ])
        .unwrap()
    }

    fn seen(view: &View) -> Result<RecordBatch, Status> {
        let batch = ten();
        Views::new().lens(view, &batch.schema())?.apply(batch)
    }

    fn ids(batch: &RecordBatch) -> Vec<i64> {
        let at = batch.schema().index_of("id").unwrap();
        batch
            .column(at)
            .as_primitive::<arrow_array::types::Int64Type>()
            .values()
            .to_vec()
    }

    fn filter(sql: &str) -> View {
        View {
            filter: Some(sql.to_owned()),
            ..View::default()
        }
    }

    #[test]
    fn conditions_choose_rows() {
        for (sql, expected) in [
            ("id >= 7", &[7, 8, 9][..]),
            ("id IN (3, 5) AND s = 'odd'", &[3, 5]),
            ("id < 0", &[]),
            ("\"Ünd X\" IS NULL", &[5]),
            ("\"Ünd X\" > 4", &[9]),
            ("s LIKE 'e%' AND id BETWEEN 2 AND 5", &[2, 4]),
            ("id * 2 = 10 OR id = 1", &[1, 5]),
            ("true", &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]),
            ("NULL = 1", &[]),
            ("arrow_cast(id, 'Utf8') = '7'", &[7]),
            ("arrow_cast('3', 'Int64') = id", &[3]),
            ("id = 4 AND TIMESTAMP '3000-01-01' > TIMESTAMP '2999-12-31'", &[4]),
        ] {
            assert_eq!(ids(&seen(&filter(sql)).unwrap()), expected, "{sql}");
        }
    }

    #[test]
    fn wrong_conditions_are_refused() {
        for sql in [
            "",
            "id >",
            "nix = 1",
            "id",
            "id + 1",
            "'x'",
            "ID = 1",
            "id = (SELECT 1)",
            "EXISTS (SELECT 1)",
            "count(id) > 1",
            "repeat('x', 1000000000) = 'x'",
            "id = 1; DROP TABLE x",
            "row_number() OVER () = 1",
            "arrow_cast(id, 'Nothing') = 1",
            "CAST('x' AS BIGINT) = id",
            "to_timestamp('3000-01-01') IS NULL",
            "now() < TIMESTAMP '2024-01-01' AND id = 1",
            "id = 1 / 0",
        ] {
            let refused = seen(&filter(sql)).expect_err(sql);
            assert_eq!(refused.code(), Code::InvalidArgument, "{sql}: {refused}");
        }
    }

    #[test]
    fn columns_come_in_the_order_asked_and_a_filter_may_use_others() {
        let columns = |names: &[&str]| Some(names.iter().map(|n| (*n).to_owned()).collect());
        let view = View {
            columns: columns(&["s", "id"]),
            filter: Some("\"Ünd X\" = 2.0".to_owned()),
            limit: None,
        };
        let batch = seen(&view).unwrap();
        assert_eq!(
            batch
                .schema()
                .fields()
                .iter()
                .map(|f| f.name().as_str())
                .collect::<Vec<_>>(),
            ["s", "id"]
        );
        assert_eq!(ids(&batch), [4]);
        let twice = seen(&View {
            columns: columns(&["id", "id"]),
            ..View::default()
        })
        .unwrap();
        assert_eq!(twice.num_columns(), 2);
        let none = seen(&View {
            columns: columns(&[]),
            ..View::default()
        })
        .unwrap();
        assert_eq!((none.num_columns(), none.num_rows()), (0, 10));
        assert_eq!(
            seen(&View {
                columns: columns(&["nix"]),
                ..View::default()
            })
            .unwrap_err()
            .code(),
            Code::InvalidArgument
        );
    }

    #[test]
    fn a_limit_counts_down_over_batches() {
        let batch = ten();
        let view = View {
            filter: Some("s = 'odd'".to_owned()),
            limit: Some(7),
            ..View::default()
        };
        let mut lens = Views::new().lens(&view, &batch.schema()).unwrap();
        assert_eq!(ids(&lens.apply(batch.clone()).unwrap()), [1, 3, 5, 7, 9]);
        assert!(!lens.is_done());
        assert_eq!(ids(&lens.apply(batch).unwrap()), [1, 3]);
        assert!(lens.is_done());
        let none = View {
            limit: Some(0),
            ..View::default()
        };
        assert!(Views::new().lens(&none, &ten().schema()).unwrap().is_done());
    }

    #[test]
    fn only_what_is_needed_is_decoded() {
        let view = View {
            columns: Some(vec!["s".to_owned()]),
            filter: Some("id = 3".to_owned()),
            limit: None,
        };
        let schema = ten().schema();
        let mut lens = Views::new().lens(&view, &schema).unwrap();
        assert_eq!(lens.decode(), [0, 2]);
        let decoded = ten().project(&[0, 2]).unwrap();
        assert_eq!(lens.apply(decoded).unwrap(), seen(&view).unwrap());
    }

    #[test]
    fn a_name_that_two_columns_bear_is_refused() {
        let schema = Arc::new(Schema::new(vec![
            Field::new("a", DataType::Int64, true),
            Field::new("a", DataType::Utf8, true),
        ]));
        let view = View {
            columns: Some(vec!["a".to_owned()]),
            ..View::default()
        };
        assert_eq!(
            Views::new().lens(&view, &schema).unwrap_err().code(),
            Code::InvalidArgument
        );
        assert!(Views::new().lens(&View::default(), &schema).is_ok());
    }

    #[test]
    fn schemas_are_recalled_until_many_others_came() {
        let views = Views::new();
        let schema = |k: usize| StreamSchema {
            schema: ten().schema(),
            message: k.to_be_bytes().to_vec().into(),
        };
        let first = views.remember(&schema(0));
        assert_eq!(views.recall(first).unwrap().message, schema(0).message);
        (1..=SCHEMAS_MAX).for_each(|k| {
            views.remember(&schema(k));
        });
        assert!(views.recall(first).is_none());
    }
}
